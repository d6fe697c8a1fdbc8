"""A circuit breaker for one instance's calls to one service: after repeated failures, no calls are made for a while.

The states, the counting and the clock are those of the `circuitbreaker` library. Two rules are added: while the
circuit is half open, exactly one call goes through as a probe; and a cancelled call is no evidence either way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from circuitbreaker import STATE_HALF_OPEN, CircuitBreaker  # type: ignore[import-untyped]  # it ships no types

from worker.errors import ResourceExhausted
from worker.providers.checks import CircuitState
from worker.providers.cloud.errors import CallNotMade, NotTried, ServiceFailed

_T = TypeVar("_T")

_PROBE_EXPECTED_S = 10.0
"""An event whose call is going to be the probe is expected this long: its image is fetched and decoded first."""


class Circuit:
    """Opens after `failures` failed calls in a row; after `open_s` one probe goes through and closes or reopens it.

    `name` stands for the service and the instance in messages.
    """

    def __init__(self, name: str, *, failures: int, open_s: float) -> None:
        self._name = name
        self._breaker = CircuitBreaker(
            failure_threshold=failures, recovery_timeout=open_s, expected_exception=ServiceFailed, name=name
        )
        self._probing = False
        self._probe_expected_until_s = 0.0

    @property
    def state(self) -> CircuitState:
        """The state of the library's breaker."""
        return CircuitState(self._breaker.state)

    def raise_if_open(self) -> None:
        """Raise CallNotMade if a call made now would not go through."""
        if self._breaker.opened or (self._half_open and self._probing):
            raise self._open()

    def why_wait(self, now_s: float) -> CallNotMade | None:
        """Why a call begun now (`now_s`, monotonic) would not go through, or None.

        None while the circuit is half open is given once: the event that gets it is expected to be the probe.
        """
        if self._breaker.opened or (self._half_open and (self._probing or now_s < self._probe_expected_until_s)):
            return self._open()
        if self._half_open:
            self._probe_expected_until_s = now_s + _PROBE_EXPECTED_S
        return None

    def _open(self) -> CallNotMade:
        left_s = max(1.0, float(self._breaker.open_remaining))
        message = f"{self._name} has failed repeatedly and is left alone for a while"
        return CallNotMade(message, reason="circuit_open", after_s=left_s)

    async def call(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """Make a request and record its outcome. Raises what `request` raises, or CallNotMade without calling it."""
        self.raise_if_open()
        probe = self._half_open
        self._probing = self._probing or probe
        self._probe_expected_until_s = 0.0
        try:
            result = await request()
        except ServiceFailed:
            with self._breaker:  # the library counts what leaves this block
                raise
        except (NotTried, ResourceExhausted):
            raise  # no evidence either way: the service has done no work, or no call could be made
        except Exception:
            self._breaker.reset()  # a refusal is a response: the service works
            raise
        else:
            self._breaker.reset()
            return result
        finally:
            if probe:
                self._probing = False

    @property
    def _half_open(self) -> bool:
        return bool(self._breaker.state == STATE_HALF_OPEN)

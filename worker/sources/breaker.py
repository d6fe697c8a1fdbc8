"""A circuit breaker: after repeated failures, no calls are made for a while.

The states, the counting and the clock are those of the `circuitbreaker` library. Two rules are added: while the
circuit is half open, exactly one call goes through as a probe; and a cancelled call is no evidence either way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from circuitbreaker import (  # type: ignore[import-untyped]  # it ships no types
    STATE_CLOSED,
    STATE_HALF_OPEN,
    CircuitBreaker,
)

from worker.errors import ResourceExhausted, TryLater
from worker.sources.blocking import NoThreadFree
from worker.sources.proxy import ProxyFailed

_T = TypeVar("_T")
_E = TypeVar("_E", bound=TryLater)
_E_co = TypeVar("_E_co", bound=TryLater, covariant=True)

SOURCE_CIRCUIT_OPEN = "source_circuit_open"
_MAXIMUM_BREAKERS = 1000

_PROBE_EXPECTED_S = 10.0
"""An event whose call is going to be the probe is expected this long: its image is fetched and decoded first."""


class MakeError(Protocol[_E_co]):
    """Makes the error of a call that is not made."""

    def __call__(self, message: str, *, reason: str, after_s: float) -> _E_co:
        """The error with its message, its reason, and the shortest sensible delay."""
        ...


class Breaker(Generic[_E]):
    """Opens after `failures` failed calls in a row; after `open_s` one probe goes through and closes or reopens it.

    `name` stands for what is called, in messages. `counted` is the error of a failed call, `not_made` the one of a call
    that does not go through, with its `reason`. An error of `no_evidence` shows neither that it works nor that not.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int,
        open_s: float,
        counted: type[Exception],
        not_made: MakeError[_E],
        reason: str,
        no_evidence: tuple[type[Exception], ...] = (ResourceExhausted,),
    ) -> None:
        self._name = name
        self._breaker = CircuitBreaker(
            failure_threshold=failures, recovery_timeout=open_s, expected_exception=counted, name=name
        )
        self._counted = counted
        self._not_made = not_made
        self._reason = reason
        self._no_evidence = no_evidence
        self._probing = False
        self._probe_expected_until_s = 0.0

    def raise_if_open(self) -> None:
        """Raise the error of a call that is not made if one made now would not go through."""
        if self._breaker.opened or (self.half_open and self._probing):
            raise self._open()

    def why_wait(self, now_s: float) -> _E | None:
        """Why a call begun now (`now_s`, monotonic) would not go through, or None.

        None while the circuit is half open is given once: the event that gets it is expected to be the probe.
        """
        if self._breaker.opened or (self.half_open and (self._probing or now_s < self._probe_expected_until_s)):
            return self._open()
        if self.half_open:
            self._probe_expected_until_s = now_s + _PROBE_EXPECTED_S
        return None

    def _open(self) -> _E:
        left_s = max(1.0, float(self._breaker.open_remaining))
        message = f"{self._name} has failed repeatedly and is left alone for a while"
        return self._not_made(message, reason=self._reason, after_s=left_s)

    async def call(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """Make a request and record its outcome. Raises what `request` raises, or `not_made` without calling it."""
        probe = False
        if self._breaker.state != STATE_CLOSED:
            self.raise_if_open()
            probe = self.half_open
            self._probing = self._probing or probe
            self._probe_expected_until_s = 0.0
        try:
            result = await request()
        except self._counted:
            with self._breaker:  # the library counts what leaves this block
                raise
        except self._no_evidence:
            raise
        except Exception:
            self._breaker.reset()  # a refusal is a response: it works
            raise
        else:
            self._breaker.reset()
            return result
        finally:
            if probe:
                self._probing = False

    @property
    def _state(self) -> str:
        return str(self._breaker.state)

    @property
    def half_open(self) -> bool:
        """Whether the next call that goes through is a probe."""
        return bool(self._breaker.state == STATE_HALF_OPEN)


class SourceFailed(TryLater):
    """An image host or a file server did not answer, or with an error of its own: it counts towards the circuit.

    `at_once`: worth another attempt in place.
    """

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0, at_once: bool = True) -> None:
        super().__init__(message, reason=reason, after_s=after_s)
        self.at_once = at_once


class SourceBreakers:
    """A circuit for each instance's use of each source: an image host, a root of files.

    One for all instances would let one of them, with addresses that hang, have a host left alone that works for others.
    There are at most a thousand; the one that was not used for the longest time goes first.
    """

    def __init__(self, failures: int, open_s: float) -> None:
        self._failures = failures
        self._open_s = open_s
        self._breakers: OrderedDict[tuple[str, str], Breaker[TryLater]] = OrderedDict()

    def of(self, instance: str, source: str) -> Breaker[TryLater]:
        """The circuit for an instance and a source, which is named in messages."""
        key = (instance, source)
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = Breaker(
                f"{source} (for {instance})",
                failures=self._failures,
                open_s=self._open_s,
                counted=SourceFailed,
                not_made=_not_fetched,
                reason=SOURCE_CIRCUIT_OPEN,
                no_evidence=(ResourceExhausted, NoThreadFree, ProxyFailed),
            )
            if len(self._breakers) > _MAXIMUM_BREAKERS:
                self._breakers.popitem(last=False)
        self._breakers.move_to_end(key)
        return breaker


def _not_fetched(message: str, *, reason: str, after_s: float) -> TryLater:
    """Waiting for it is no attempt at the event."""
    return TryLater(message, reason=reason, after_s=after_s, counted=False)

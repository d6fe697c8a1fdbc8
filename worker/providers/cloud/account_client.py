"""Limits the calls of one account to one service: pauses, rate, concurrency, monthly budget and circuit breaker.

A client belongs to one account (endpoint and key). When an instance's account changes, a new client is created; calls
in flight stay with the old one, so that no image is ever sent with a key that is not its own instance's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from aiolimiter import AsyncLimiter
from pydantic import SecretStr

from worker.errors import AutotagError, Misconfigured, Unavailable
from worker.providers.checks import CircuitState
from worker.providers.cloud.budget import CallBudget, Reservation
from worker.providers.cloud.circuit import Circuit
from worker.providers.cloud.errors import MAY_HAVE_BEEN_BILLED, CallNotMade, RateLimited
from worker.providers.cloud.observer import NO_OBSERVER, CallObserver

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Account:
    """One instance's account with a service, and its limits. The key is not shown in the representation."""

    provider: str
    instance: str
    url: str
    key: SecretStr
    calls_per_second: float | None
    calls_per_month: int | None


@dataclass(frozen=True, slots=True)
class AccountRules:
    """The rules that are the same for all accounts: concurrency, circuit breaker, pauses.

    After a refusal that an operator must fix (a refused key), no call is made for `refused_key_pause_s`. When a service
    asks for a pause, images wait here for `longest_pause_s` at most. `observer` is notified of every call.
    """

    maximum_calls_at_once: int
    failures_to_open_circuit: int
    circuit_open_s: float
    refused_key_pause_s: float
    longest_pause_s: float
    observer: CallObserver = NO_OBSERVER


class AccountClient:
    """Makes the calls of one account. The steps of a call, in this order: `wait_for_turn`, `reserve`, `send`."""

    def __init__(self, account: Account, rules: AccountRules, budget: CallBudget) -> None:
        self.account = account
        self.rules = rules
        self._budget = budget
        self._circuit = Circuit(
            f"{account.provider} of instance {account.instance}",
            failures=rules.failures_to_open_circuit,
            open_s=rules.circuit_open_s,
        )
        self._slots = asyncio.Semaphore(rules.maximum_calls_at_once)
        self._limiter = _limiter(account.calls_per_second)
        self._paused_until_s = 0.0
        self._refusal: Misconfigured | Unavailable | None = None
        self._refused_until_s = 0.0

    @property
    def circuit_state(self) -> CircuitState:
        """State of the circuit breaker."""
        return self._circuit.state

    async def wait_for_turn(self) -> None:
        """Wait until pause and rate allow a call.

        Raises CallNotMade while the circuit is open or for a pause that is too long to wait here, and the recent
        Misconfigured or Unavailable for a refused account.
        """
        self._raise_if_blocked()
        while (left_s := self._paused_until_s - time.monotonic()) > 0:  # another call may extend the pause meanwhile
            if left_s > self.rules.longest_pause_s:
                raise CallNotMade(
                    f"{self.account.provider} of instance {self.account.instance} asked for a rest of another "
                    f"{left_s:.0f} s",
                    reason="quota_exhausted",
                    after_s=left_s,
                )
            await asyncio.sleep(left_s)
        if self._limiter is not None:
            await self._limiter.acquire()
        self._raise_if_blocked()  # the state may have changed while waiting

    async def reserve(self, calls: int) -> Reservation | None:
        """Reserve up to `calls` calls of this month; None without a limit. Raises Unavailable if none is left."""
        limit = self.account.calls_per_month
        if limit is None:
            return None
        reservation = await self._budget.reserve(self.account.provider, self.account.instance, calls, limit)
        if reservation.calls == 0:
            raise self.budget_exhausted()
        return reservation

    def budget_exhausted(self) -> Unavailable:
        """The error for an image when no call is left this month."""
        return Unavailable(
            f"{self.account.provider} of instance {self.account.instance} has made its {self.account.calls_per_month} "
            f"calls of this month (`calls_per_month`); the budget renews at {self._budget.renews():%Y-%m-%d %H:%M} UTC",
            reason="budget_exhausted",
            after_s=self._budget.renews_in_s(),
        )

    async def call(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """All three steps for one call with one image."""
        async with self._slots:
            await self.wait_for_turn()
            return await self.send(request, await self.reserve(1))

    async def close(self) -> None:
        """Cancel the client's own tasks; this class has none."""

    async def send(self, request: Callable[[], Awaitable[_T]], reservation: Reservation | None) -> _T:
        """Make the call. Its outcome updates the pause and the circuit; calls that were not billed are released.

        Raises what `request` raises, or CallNotMade while the circuit is open.
        """
        started_s = time.monotonic()
        try:
            result = await self._circuit.call(request)
        except AutotagError as error:
            if not isinstance(error, CallNotMade):
                self._notify_observer(error.reason, started_s)
            self._pause_after(error)
            if reservation is not None and error.reason not in MAY_HAVE_BEEN_BILLED:
                await self._budget.release(reservation, reservation.calls)
            raise
        self._notify_observer(None, started_s)
        return result

    def _notify_observer(self, failure: str | None, started_s: float) -> None:
        self.rules.observer.called(self.account.provider, self.account.instance, failure, time.monotonic() - started_s)

    def _pause_after(self, error: AutotagError) -> None:
        if isinstance(error, RateLimited):
            self._paused_until_s = max(self._paused_until_s, time.monotonic() + error.after_s)
        elif isinstance(error, Misconfigured | Unavailable):
            # A whole library may be queued: one refused call now and then is enough to notice that the key works again.
            self._refusal = error
            self._refused_until_s = time.monotonic() + self.rules.refused_key_pause_s
            _log.error(
                "calls are refused until somebody acts",
                provider=self.account.provider,
                instance=self.account.instance,
                reason=error.reason,
                error=str(error),
            )

    def _raise_if_blocked(self) -> None:
        if self._refusal is not None and time.monotonic() < self._refused_until_s:
            raise type(self._refusal)(str(self._refusal), reason=self._refusal.reason)
        self._circuit.raise_if_open()


def _limiter(calls_per_second: float | None) -> AsyncLimiter | None:
    """A token bucket of one second's calls, at least one: 0.5 a second is one call every two seconds."""
    if calls_per_second is None:
        return None
    burst = max(1.0, calls_per_second)
    return AsyncLimiter(burst, burst / calls_per_second)

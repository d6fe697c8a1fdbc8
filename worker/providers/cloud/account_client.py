"""What one instance may ask of one service at this moment: its pause, rate, budget and circuit, in one place.

A client belongs to one account (endpoint and key). When an instance's account changes, it gets a new client; calls
under way stay with the old one, so that no image is ever sent under a key that is not its own instance's.
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
from worker.providers.cloud.budget import CallBudget, Grant
from worker.providers.cloud.circuit import Circuit
from worker.providers.cloud.faults import MAY_HAVE_BEEN_BILLED, NotCalled, SlowDown
from worker.providers.cloud.observer import NO_OBSERVER, CallObserver

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Account:
    """Who is calling whom, and how much is allowed. The key does not show in its representation."""

    provider: str
    instance: str
    url: str
    key: SecretStr
    calls_per_second: float | None
    calls_per_month: int | None


@dataclass(frozen=True, slots=True)
class AccountRules:
    """How many calls may be under way at once, and how long a service is left alone after what.

    A service may ask for a pause; images wait for the end of one no longer than `longest_pause_s` with us. `calls` is
    told of every call that is made.
    """

    maximum_calls_at_once: int
    failures_to_open_circuit: int
    circuit_open_s: float
    refused_key_pause_s: float
    longest_pause_s: float
    calls: CallObserver = NO_OBSERVER


class AccountClient:
    """The way of one account's calls. Its steps, in this order: `admission`, `take`, `send`."""

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

    async def admission(self) -> None:
        """Wait for this call's turn. Raises Misconfigured, Unavailable or NotCalled where waiting would not help."""
        self._refuse_at_once()
        while (left_s := self._paused_until_s - time.monotonic()) > 0:  # another call may lengthen the pause meanwhile
            if left_s > self.rules.longest_pause_s:
                raise NotCalled(
                    f"{self.account.provider} of instance {self.account.instance} asked for a rest of another "
                    f"{left_s:.0f} s",
                    reason="quota_exhausted",
                    after_s=left_s,
                )
            await asyncio.sleep(left_s)
        if self._limiter is not None:
            await self._limiter.acquire()
        self._refuse_at_once()  # much may have happened while waiting

    async def take(self, wanted: int) -> Grant | None:
        """Take calls from the month's budget; None when there is no limit. Raises Unavailable when it is used up."""
        limit = self.account.calls_per_month
        if limit is None:
            return None
        grant = await self._budget.take(self.account.provider, self.account.instance, wanted, limit)
        if grant.calls == 0:
            raise self.budget_exhausted()
        return grant

    def budget_exhausted(self) -> Unavailable:
        """The error for an image for which no call is left this month."""
        return Unavailable(
            f"{self.account.provider} of instance {self.account.instance} has made its {self.account.calls_per_month} "
            f"calls of this month (`calls_per_month`); the budget renews at {self._budget.renews():%Y-%m-%d %H:%M} UTC",
            reason="budget_exhausted",
            after_s=self._budget.renews_in_s(),
        )

    async def call(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """All three steps for a call of one image."""
        async with self._slots:
            await self.admission()
            return await self.send(ask, await self.take(1))

    async def close(self) -> None:
        """Break off what the client has under way by itself: nothing, here."""

    async def send(self, ask: Callable[[], Awaitable[_T]], grant: Grant | None) -> _T:
        """Make the call, and draw from its end what follows for the next ones."""
        started_s = time.monotonic()
        try:
            answer = await self._circuit.call(ask)
        except AutotagError as error:
            if not isinstance(error, NotCalled):
                self._tell(error.reason, started_s)
            self._learn(error)
            if grant is not None and error.reason not in MAY_HAVE_BEEN_BILLED:
                await self._budget.give_back(grant, grant.calls)
            raise
        self._tell(None, started_s)
        return answer

    def _tell(self, failure: str | None, started_s: float) -> None:
        self.rules.calls.called(self.account.provider, self.account.instance, failure, time.monotonic() - started_s)

    def _learn(self, error: AutotagError) -> None:
        if isinstance(error, SlowDown):
            self._paused_until_s = max(self._paused_until_s, time.monotonic() + error.after_s)
        elif isinstance(error, Misconfigured | Unavailable):
            # A whole library may be waiting: one refused call now and then is enough to see that the key works again.
            self._refusal = error
            self._refused_until_s = time.monotonic() + self.rules.refused_key_pause_s
            _log.error(
                "calls are refused until somebody acts",
                provider=self.account.provider,
                instance=self.account.instance,
                reason=error.reason,
                error=str(error),
            )

    def _refuse_at_once(self) -> None:
        if self._refusal is not None and time.monotonic() < self._refused_until_s:
            raise type(self._refusal)(str(self._refusal), reason=self._refusal.reason)
        self._circuit.refuse_when_open()


def _limiter(calls_per_second: float | None) -> AsyncLimiter | None:
    """A bucket that holds a second's calls, and never less than one: 0.5 a second is one call every two seconds."""
    if calls_per_second is None:
        return None
    burst = max(1.0, calls_per_second)
    return AsyncLimiter(burst, burst / calls_per_second)

"""Limits the calls of one account to one service: pauses, rate, concurrency, monthly budget and circuit breaker.

A client belongs to one account (endpoint and key). When an instance's account changes, a new client is created; calls
in flight stay with the old one, so that no image is ever sent with a key that is not its own instance's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import structlog
from pydantic import SecretStr

from worker.errors import AutotagError, Misconfigured, ResourceExhausted, TryLater, Unavailable
from worker.operations.clock import written
from worker.providers.checks import CircuitState
from worker.providers.cloud.budget import CallBudget, Reservation
from worker.providers.cloud.circuit import Circuit
from worker.providers.cloud.errors import MAY_HAVE_BEEN_BILLED, NOT_WANTED, CallNotMade, RateLimited, ServiceFailed
from worker.providers.cloud.observer import NO_OBSERVER, CallObserver
from worker.providers.cloud.places import Places
from worker.providers.cloud.sharing import Interest
from worker.providers.cloud.turns import Turns

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_BUDGET_TRIED_AGAIN_S = 10.0
"""A budget that could not be used costs each image that tries it some seconds, and a fetch before."""

_BUDGET_LOOKED_AT_AGAIN_S = 60.0
"""A budget that was used up may be larger meanwhile: another process has released calls."""


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

    An image waits here for a turn for `longest_wait_s` at most, and for a place half as long; then its event goes away
    for one of `delays_s`. After a refusal that an operator must fix (a refused key), no call is made for
    `refused_key_pause_s`. When a service asks for a pause, images wait here for `longest_pause_s` at most. `observer`
    is notified of calls.
    """

    maximum_calls_at_once: int
    longest_wait_s: float
    delays_s: tuple[float, ...]
    failures_to_open_circuit: int
    circuit_open_s: float
    refused_key_pause_s: float
    longest_pause_s: float
    observer: CallObserver = NO_OBSERVER


@dataclass(slots=True)
class HeldTurn:
    """A turn for a call, and whether the call has been made."""

    used: bool = False


class AccountClient:
    """Makes the calls of one account. The steps, in this order: `place`, `turn`, `reserve`, `send`."""

    images_per_call: ClassVar[int] = 1

    def __init__(self, account: Account, rules: AccountRules, budget: CallBudget, places: Places) -> None:
        self.account = account
        self.rules = rules
        self._name = f"{account.provider} of instance {account.instance}"
        self._budget = budget
        self._circuit = Circuit(self._name, failures=rules.failures_to_open_circuit, open_s=rules.circuit_open_s)
        self._share = places.share(self._name)
        self.turns = (
            None
            if account.calls_per_second is None
            else Turns(
                account.calls_per_second,
                longest_wait_s=rules.longest_wait_s,
                delays_s=rules.delays_s,
                images_per_call=self.images_per_call,
            )
        )
        self._paused_until_s = 0.0
        self._paused_because = ""
        self._rate_limits_in_a_row = 0
        self._refusal: Misconfigured | Unavailable | None = None
        self._refused_until_s = 0.0
        self._budget_used_up_until_s = 0.0
        self._budget_failure: TryLater | None = None
        self._budget_unusable_until_s = 0.0

    @property
    def circuit_state(self) -> CircuitState:
        """State of the circuit breaker."""
        return self._circuit.state

    def why_wait(self) -> TryLater | Unavailable | None:
        """Why an image should not even be fetched now; None promises it a call within `longest_wait_s` or so."""
        now_s = time.monotonic()
        if isinstance(self._refusal, Unavailable) and now_s < self._refused_until_s:
            return Unavailable(str(self._refusal), reason=self._refusal.reason, after_s=self._refused_until_s - now_s)
        if now_s < self._budget_used_up_until_s:
            return self.budget_exhausted()
        if (unusable := self._budget_unusable(now_s)) is not None:
            return unusable
        if self._paused_until_s - now_s > self.rules.longest_wait_s:
            return self._paused(self._paused_until_s - now_s)
        if self.line_waited_s(now_s) > self.rules.longest_wait_s / 4:
            return self._share.no_place()
        # The turn first: the circuit promises its only probe to nobody who would not get a turn.
        if self.turns is not None and not self.turns.promise(now_s):
            return self._no_turn(now_s)
        if (waiting := self._circuit.why_wait(now_s)) is not None:
            self.keep_promise()
            return waiting
        return None

    def let_in(self) -> None:
        """An image may come in any case, since its answer may be there already; if not, it is expected at its turn."""
        if self.turns is not None:
            self.turns.promise(time.monotonic())

    def keep_promise(self) -> None:
        """One image that was promised a call has had its turn, or does not need it."""
        if self.turns is not None:
            self.turns.keep_promises(1)

    def line_waited_s(self, now_s: float) -> float:
        """How long the first of those who wait for a place has waited, or a call that others wait for has hung."""
        return self._share.waited_s(now_s)

    def place(self, longest_wait_s: float | None) -> AbstractAsyncContextManager[None]:
        """Hold one of the places for calls during the block. Raises CallNotMade if there is none in time."""
        return self._share.place(longest_wait_s)

    def raise_if_blocked(self) -> None:
        """Raise what refuses every call now: CallNotMade while the circuit is open, or the refusal of the account."""
        if self._refusal is not None and time.monotonic() < self._refused_until_s:
            raise type(self._refusal)(str(self._refusal), reason=self._refusal.reason)
        self._circuit.raise_if_open()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[HeldTurn]:
        """Wait until pause and rate allow a call, and hold this turn during the block; unused, it is given back.

        Raises CallNotMade while the circuit is open, or for a pause or a turn that is too long to wait for here, and
        the recent Misconfigured or Unavailable for a refused account.
        """
        self.raise_if_blocked()
        await self._wait_while_paused()
        now_s = time.monotonic()
        wait_s = 0.0 if self.turns is None else self.turns.take(now_s)
        if wait_s is None:
            raise self._no_turn(now_s)
        held = HeldTurn()
        try:
            await asyncio.sleep(wait_s)
            await self._wait_while_paused()  # one may have begun meanwhile
            self.raise_if_blocked()
            yield held
        finally:
            if self.turns is not None and not held.used:
                self.turns.give_back()

    async def _wait_while_paused(self) -> None:
        while (left_s := self._paused_until_s - time.monotonic()) > 0:  # another call may extend the pause meanwhile
            if left_s > self.rules.longest_pause_s:
                raise self._paused(left_s)
            await asyncio.sleep(left_s)

    async def reserve(self, calls: int) -> Reservation | None:
        """Reserve up to `calls` calls of this month; None without a limit. Raises Unavailable if none is left.

        Raises TryLater, uncounted, if calls can't be counted now, or could not be a moment ago.
        """
        limit = self.account.calls_per_month
        if limit is None:
            return None
        if (unusable := self._budget_unusable(time.monotonic())) is not None:
            raise unusable
        try:
            reservation = await self._budget.reserve(self.account.provider, self.account.instance, calls, limit)
        except TryLater as error:
            self._budget_failure = error
            self._budget_unusable_until_s = time.monotonic() + _BUDGET_TRIED_AGAIN_S
            raise
        if reservation.calls == 0:
            self._budget_used_up_until_s = time.monotonic() + min(_BUDGET_LOOKED_AT_AGAIN_S, self._budget.renews_in_s())
            raise self.budget_exhausted()
        return reservation

    def _budget_unusable(self, now_s: float) -> TryLater | None:
        error, left_s = self._budget_failure, self._budget_unusable_until_s - now_s
        if error is None or left_s <= 0:
            return None
        return TryLater(str(error), reason=error.reason, after_s=left_s, counted=error.counted)

    def budget_exhausted(self) -> Unavailable:
        """The error for an image when no call is left this month."""
        return Unavailable(
            f"{self._name} has made its {self.account.calls_per_month} calls of this month "
            f"(`calls_per_month`); the budget renews at {written(self._budget.renews())}",
            reason="budget_exhausted",
            after_s=self._budget.renews_in_s(),
        )

    async def call(
        self,
        read: Callable[[], Awaitable[bytes]],
        request: Callable[[bytes], Awaitable[_T]],
        interest: Interest,
    ) -> _T:
        """All steps for one call with one image, which is read when it has its turn. Raises what `read` raises too."""
        self.raise_if_blocked()
        async with self.place(self.rules.longest_wait_s / 2), self.turn() as turn:
            interest.turn_came()
            data = await read()
            with interest.sending():
                reservation = await self.reserve(1)
                if not interest.wanted:
                    await self.release(reservation)
                    raise self.not_wanted()
                return await self.send(lambda: request(data), reservation, turn)

    def too_long_in_line(self) -> CallNotMade:
        """The error for an image that has waited here for too long without a call."""
        left_s = self._paused_until_s - time.monotonic()
        return self._paused(left_s) if left_s > 0 else self._share.no_place()

    def not_wanted(self) -> CallNotMade:
        """The error for a call that nobody waits for any more."""
        return CallNotMade(f"nobody waits for the answer of {self._name} any more", reason=NOT_WANTED)

    async def close(self) -> None:
        """Cancel the client's own tasks; this class has none."""

    async def send(self, request: Callable[[], Awaitable[_T]], reservation: Reservation | None, turn: HeldTurn) -> _T:
        """Make the call. Its outcome updates the pause and the circuit; calls that were not billed are released.

        Raises what `request` raises, or CallNotMade while the circuit is open.
        """
        started_s = time.monotonic()
        turn.used = True
        try:
            result = await self._circuit.call(request)
        except AutotagError as error:
            turn.used = not isinstance(error, CallNotMade | ResourceExhausted)
            if not isinstance(error, CallNotMade):
                self._notify_observer(error.reason, started_s)
                self._share.answered(not isinstance(error, ServiceFailed))
            self._pause_after(error)
            if error.reason not in MAY_HAVE_BEEN_BILLED:
                await self.release(reservation)
            raise
        self._rate_limits_in_a_row = 0
        self._share.answered(True)
        self._notify_observer(None, started_s)
        return result

    async def release(self, reservation: Reservation | None, calls: int | None = None) -> None:
        """Return calls that were not made, by default all. What cannot be returned stays counted: the limit holds."""
        if reservation is None:
            return
        try:
            await self._budget.release(reservation, reservation.calls if calls is None else calls)
        except TryLater as error:
            _log.warning("calls that were not made stay counted", provider=self.account.provider, error=str(error))

    def _notify_observer(self, failure: str | None, started_s: float) -> None:
        self.rules.observer.called(self.account.provider, self.account.instance, failure, time.monotonic() - started_s)

    def _pause_after(self, error: AutotagError) -> None:
        if isinstance(error, RateLimited):
            # Without a wait that the service asks for, one of our own that grows: else each event would ask in vain.
            self._rate_limits_in_a_row += 1
            own_s = min(self.rules.longest_pause_s, 2.0 ** min(self._rate_limits_in_a_row, 16))
            self._pause(error.after_s or own_s, error.reason)
        elif isinstance(error, ServiceFailed) and error.after_s > 0:
            self._pause(error.after_s, error.reason)
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

    def _pause(self, for_s: float, reason: str) -> None:
        until_s = time.monotonic() + for_s
        if until_s > self._paused_until_s:
            self._paused_until_s, self._paused_because = until_s, reason

    def _paused(self, left_s: float) -> CallNotMade:
        return CallNotMade(f"{self._name} asked for a pause", reason=self._paused_because, after_s=left_s)

    def _no_turn(self, now_s: float) -> CallNotMade:
        assert self.turns is not None  # noqa: S101 - without a rate every call has its turn
        message = f"{self._name} has made the calls that `calls_per_second` allows for now"
        return CallNotMade(message, reason="rate_limit", after_s=self.turns.come_back_s(now_s))

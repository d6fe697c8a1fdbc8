"""Sends queued items in batches; a single item is never delayed to fill a batch.

A few workers send items as soon as there are any. Items accumulate only while all workers are busy, or held by a limit;
the next free worker then takes as many as a call may hold. Only where turns are scarce does a call wait up to a second,
and only for items that are on their way.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from worker.errors import AutotagError, CannotBeDone
from worker.providers.cloud.account_client import AccountClient, HeldTurn
from worker.providers.cloud.budget import Reservation
from worker.providers.cloud.errors import copy_of, stopping
from worker.providers.cloud.sharing import Interest

_LINGER_STEP_S = 0.05

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that one call may hold."""

    items: int
    size_bytes: int


@dataclass(slots=True, eq=False)
class _Queued(Generic[_Item, _Result]):
    """An item with the future of its result. `taken`: it is in a batch. `alone`: in one of its own, in any case."""

    item: _Item
    size_bytes: int
    interest: Interest
    future: asyncio.Future[_Result]
    taken: bool = False
    alone: bool = False
    since_s: float = field(default_factory=time.monotonic)


class Batcher(Generic[_Item, _Result]):
    """Batches the items of one account.

    `read` gives the bytes of an item; it is called when the item is in a batch. `send` takes those of a batch and
    returns a result or an error for each, in order.
    """

    def __init__(
        self,
        client: AccountClient,
        read: Callable[[_Item], Awaitable[bytes]],
        send: Callable[[list[tuple[_Item, bytes]]], Awaitable[list[_Result | AutotagError]]],
        limits: BatchLimits,
        *,
        maximum_calls: int,
    ) -> None:
        self._client = client
        self._read = read
        self._send = send
        self._limits = limits
        self._maximum_calls = maximum_calls
        self._queue: deque[_Queued[_Item, _Result]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._sending = 0
        """Workers that have taken a batch."""
        self._choosing = asyncio.Lock()
        """Held by the worker that makes the next batch: a turn is taken only for items that are there."""

    async def submit(self, item: _Item, size_bytes: int, interest: Interest) -> _Result:
        """The result for one item of `size_bytes` in the request. Raises the error of the item or of its whole call.

        Raises CallNotMade if no call has taken it in time.
        """
        self._client.raise_if_blocked()
        loop = asyncio.get_running_loop()
        queued: _Queued[_Item, _Result] = _Queued(item, size_bytes, interest, loop.create_future())
        self._queue.append(queued)
        self._start_worker_if_needed()
        try:
            # Longer than a turn is waited for, so that what was promised one gets it.
            await asyncio.wait({queued.future}, timeout=1.5 * self._client.rules.longest_wait_s)
            if not queued.future.done() and not queued.taken:
                raise self._client.too_long_in_line()
            return await queued.future
        finally:
            queued.future.cancel()
            if not queued.taken:
                with suppress(ValueError):  # all of the queue may have been failed at once
                    self._queue.remove(queued)

    def waited_s(self, now_s: float) -> float:
        """How long the first item has waited for a call."""
        return now_s - self._queue[0].since_s if self._queue else 0.0

    async def close(self) -> None:
        """Cancel all calls; items without a result fail with TryLater."""
        workers = tuple(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._fail(self._take_all(), stopping())

    def _start_worker_if_needed(self) -> None:
        # A worker runs at the loop's next iteration, so that items submitted in the same one share a batch.
        free_workers = len(self._workers) - self._sending
        if len(self._workers) < self._maximum_calls and free_workers < len(self._queue):
            self._workers.add(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        try:
            while self._queue:
                async with AsyncExitStack() as held:
                    async with self._choosing:
                        chosen = await self._choose(held)
                    if chosen is not None:
                        self._sending += 1
                        try:
                            await self._send_batch(*chosen)
                        finally:
                            self._sending -= 1
        finally:
            # Here, not in a done callback: an item submitted in between would count on a worker that has ended.
            self._workers.discard(asyncio.current_task())

    async def _choose(self, held: AsyncExitStack) -> tuple[list[_Queued[_Item, _Result]], HeldTurn] | None:
        """The next batch, once there are a place and a turn for it, put into `held`; None if nobody waits."""
        await held.enter_async_context(self._client.place(None))  # each item bounds its own wait
        await self._linger()
        self._drop_those_who_have_gone()
        if not self._queue:
            return None
        try:
            turn = await held.enter_async_context(self._client.turn())
        except AutotagError as error:
            everything = self._take_all()
            self._fail(everything, error)
            return None
        batch = self._next_batch()
        for queued in batch:
            queued.interest.turn_came()
        return (batch, turn) if batch else None  # who was there may have gone during the wait

    async def _linger(self) -> None:
        """Where turns are scarce, wait for the items that have been promised this one and are on their way."""
        turns = self._client.turns
        if turns is None:
            return
        began_s = now_s = time.monotonic()
        while now_s - began_s < turns.worth_waiting_s(len(self._queue), now_s):
            await asyncio.sleep(_LINGER_STEP_S)
            now_s = time.monotonic()

    def _drop_those_who_have_gone(self) -> None:
        """Without this a worker would go round for items whose `submit` has not run since they were given up."""
        self._queue = deque(queued for queued in self._queue if not queued.future.done())

    async def _send_batch(self, batch: list[_Queued[_Item, _Result]], turn: HeldTurn) -> None:
        with ExitStack() as sending:
            for queued in batch:
                sending.enter_context(queued.interest.sending())
            await self._send_taken(batch, turn)

    async def _send_taken(self, batch: list[_Queued[_Item, _Result]], turn: HeldTurn) -> None:
        try:
            data = await self._read_all(batch)
            if not batch:
                return
            reservation = await self._reserve(batch)
            if not batch:
                return
            results = await self._client.send(
                lambda: self._send([(queued.item, data[queued]) for queued in batch]), reservation, turn
            )
        except CannotBeDone as error:
            self._fail_or_send_alone(batch, error)
        except AutotagError as error:
            self._fail(batch, error)
        except asyncio.CancelledError:
            self._fail(batch, stopping())
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong, every future must be resolved
            self._fail(batch, error)
        else:
            self._hand_out(batch, results)

    async def _read_all(self, batch: list[_Queued[_Item, _Result]]) -> dict[_Queued[_Item, _Result], bytes]:
        """The bytes of each; those that cannot be read fail and are removed from the batch."""
        read = await asyncio.gather(*(self._read(queued.item) for queued in batch), return_exceptions=True)
        data: dict[_Queued[_Item, _Result], bytes] = {}
        for queued, each in zip(tuple(batch), read, strict=True):
            if isinstance(each, bytes):
                data[queued] = each
            elif isinstance(each, Exception):
                self._fail([queued], each)
                batch.remove(queued)
            else:
                raise each
        return data

    async def _reserve(self, batch: list[_Queued[_Item, _Result]]) -> Reservation | None:
        """Reserve a call for each item; those without one fail and are removed from the batch."""
        reservation = await self._client.reserve(len(batch))
        if reservation is not None:
            self._fail(batch[reservation.calls :], self._client.budget_exhausted())
            del batch[reservation.calls :]
        unwanted = [queued for queued in batch if not queued.interest.wanted]
        if not unwanted:
            return reservation
        # Those who waited have gone while the calls were reserved.
        self._fail(unwanted, self._client.not_wanted())
        batch[:] = [queued for queued in batch if queued not in unwanted]
        await self._client.release(reservation, len(unwanted))
        return None if reservation is None else replace(reservation, calls=len(batch))

    def _fail_or_send_alone(self, batch: list[_Queued[_Item, _Result]], error: CannotBeDone) -> None:
        """Handle the refusal of a whole call: of several items, send each alone to find the one at fault."""
        if len(batch) == 1:
            self._fail(batch, error)
            return
        for queued in reversed(batch):
            queued.alone, queued.taken = True, False
            self._queue.appendleft(queued)

    def _next_batch(self) -> list[_Queued[_Item, _Result]]:
        batch: list[_Queued[_Item, _Result]] = []
        size_bytes = 0
        while self._queue and len(batch) < self._limits.items:
            first = self._queue[0]
            full = batch and (first.alone or size_bytes + first.size_bytes > self._limits.size_bytes)
            if full and not first.future.done():
                break
            self._queue.popleft()
            if first.future.done():  # its caller was cancelled
                continue
            first.taken = True
            batch.append(first)
            size_bytes += first.size_bytes
            if first.alone:
                break
        return batch

    def _take_all(self) -> list[_Queued[_Item, _Result]]:
        everything = list(self._queue)
        self._queue.clear()
        return everything

    def _hand_out(self, batch: list[_Queued[_Item, _Result]], results: list[_Result | AutotagError]) -> None:
        for queued, result in zip(batch, results, strict=True):
            if isinstance(result, AutotagError):
                self._fail([queued], result)
            elif not queued.future.done():
                queued.future.set_result(result)

    @staticmethod
    def _fail(batch: list[_Queued[_Item, _Result]], error: Exception) -> None:
        for queued in batch:
            queued.interest.note(error)
            if not queued.future.done():
                queued.future.set_exception(copy_of(error) if len(batch) > 1 else error)

"""Sends queued items in batches; a single item is never delayed to fill a batch.

A few workers send items as soon as there are any. Items accumulate only while all workers are busy, or held by a rate
limit; the next free worker then takes as many as a call may hold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.errors import AutotagError, CannotBeDone, TryLater
from worker.providers.cloud.account_client import AccountClient

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that one call may hold."""

    items: int
    size_bytes: int


@dataclass(slots=True, eq=False)
class _Queued(Generic[_Item, _Result]):
    """An item with the future of its result. `alone`: it must be the only one in its call."""

    item: _Item
    size_bytes: int
    future: asyncio.Future[_Result]
    alone: bool = False


class Batcher(Generic[_Item, _Result]):
    """Batches the items of one account. `send` takes a batch and returns a result or an error for each, in order."""

    def __init__(
        self,
        client: AccountClient,
        send: Callable[[list[_Item]], Awaitable[list[_Result | AutotagError]]],
        limits: BatchLimits,
        *,
        maximum_calls: int,
    ) -> None:
        self._client = client
        self._send = send
        self._limits = limits
        self._maximum_calls = maximum_calls
        self._queue: deque[_Queued[_Item, _Result]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._sending = 0
        """Workers that have taken a batch."""

    async def submit(self, item: _Item, size_bytes: int) -> _Result:
        """The result for one item of `size_bytes` in the request. Raises the error of the item or of its whole call."""
        loop = asyncio.get_running_loop()
        queued: _Queued[_Item, _Result] = _Queued(item, size_bytes, loop.create_future())
        self._queue.append(queued)
        self._start_worker_if_needed()
        return await queued.future

    async def close(self) -> None:
        """Cancel all calls; items without a result fail with TryLater."""
        workers = tuple(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._fail(self._take_all(), _stopping())

    def _start_worker_if_needed(self) -> None:
        # A worker runs at the loop's next iteration, so that items submitted in the same one share a batch.
        free_workers = len(self._workers) - self._sending
        if len(self._workers) < self._maximum_calls and free_workers < len(self._queue):
            self._workers.add(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        try:
            while self._queue:
                try:
                    await self._client.wait_for_turn()
                except AutotagError as error:
                    self._fail(self._take_all(), error)
                batch = self._next_batch()
                if batch:
                    self._sending += 1
                    try:
                        await self._send_batch(batch)
                    finally:
                        self._sending -= 1
        finally:
            # Here, not in a done callback: an item submitted in between would count on a worker that has ended.
            self._workers.discard(asyncio.current_task())

    async def _send_batch(self, batch: list[_Queued[_Item, _Result]]) -> None:
        reservation = None
        try:
            reservation = await self._client.reserve(len(batch))
            reserved = len(batch) if reservation is None else reservation.calls
            self._fail(batch[reserved:], self._client.budget_exhausted())
            del batch[reserved:]
            results = await self._client.send(lambda: self._send([queued.item for queued in batch]), reservation)
        except CannotBeDone as error:
            self._fail_or_send_alone(batch, error)
        except AutotagError as error:
            self._fail(batch, error)
        except asyncio.CancelledError:
            self._fail(batch, _stopping())
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong, every future must be resolved
            self._fail(batch, error)
        else:
            for queued, result in zip(batch, results, strict=True):
                if isinstance(result, AutotagError):
                    self._fail([queued], result)
                elif not queued.future.done():
                    queued.future.set_result(result)

    def _fail_or_send_alone(self, batch: list[_Queued[_Item, _Result]], error: CannotBeDone) -> None:
        """Handle the refusal of a whole call: of several items, send each alone to find the one at fault."""
        if len(batch) == 1:
            self._fail(batch, error)
            return
        for queued in reversed(batch):
            queued.alone = True
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
            batch.append(first)
            size_bytes += first.size_bytes
            if first.alone:
                break
        return batch

    def _take_all(self) -> list[_Queued[_Item, _Result]]:
        everything = list(self._queue)
        self._queue.clear()
        return everything

    @staticmethod
    def _fail(batch: list[_Queued[_Item, _Result]], error: Exception) -> None:
        for queued in batch:
            if not queued.future.done():
                queued.future.set_exception(_copy(error) if len(batch) > 1 else error)


def _copy(error: Exception) -> Exception:
    """An equal error: a shared one would collect the traceback of every place where it is raised.

    `copy.copy` does not work here: it calls the constructor with the message alone.
    """
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    return copied


def _stopping() -> TryLater:
    return TryLater("the service is stopping; the call was broken off", reason="stopping")

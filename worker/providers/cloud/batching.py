"""Several images in one call where several wait; a lone one never waits for company.

A few workers carry items away as soon as there are any. Only while all of them are busy, or held by a rate limit, do
items gather, and then whoever is free next takes as many as a call may hold.
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
class _Waiting(Generic[_Item, _Result]):
    item: _Item
    size_bytes: int
    future: asyncio.Future[_Result]
    alone: bool = False


class Batcher(Generic[_Item, _Result]):
    """Carries items of one client. `send` takes a batch and gives a result or an error for each, in the same order."""

    def __init__(
        self,
        client: AccountClient,
        send: Callable[[list[_Item]], Awaitable[list[_Result | AutotagError]]],
        limits: BatchLimits,
        *,
        maximum_calls: int,
    ) -> None:
        self._account_client = client
        self._send = send
        self._limits = limits
        self._maximum_calls = maximum_calls
        self._queue: deque[_Waiting[_Item, _Result]] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._carrying = 0

    async def submit(self, item: _Item, size_bytes: int) -> _Result:
        """The result for one item, however many others it travelled with. Raises what its call or itself ended in."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting[_Item, _Result] = _Waiting(item, size_bytes, loop.create_future())
        self._queue.append(waiting)
        self._hire()
        return await waiting.future

    async def close(self) -> None:
        """Break off all calls; what still waits is to be tried later."""
        workers = tuple(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._fail(self._all_waiting(), _closed())

    def _hire(self) -> None:
        # A worker begins at the loop's next turn, so that what is submitted in the same turn travels together.
        about_to_take = len(self._workers) - self._carrying
        if len(self._workers) < self._maximum_calls and about_to_take < len(self._queue):
            self._workers.add(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        try:
            while self._queue:
                try:
                    await self._account_client.admission()
                except AutotagError as error:
                    self._fail(self._all_waiting(), error)
                batch = self._next_batch()
                if batch:
                    self._carrying += 1
                    try:
                        await self._carry(batch)
                    finally:
                        self._carrying -= 1
        finally:
            # Here and not in a callback of the task's end: nothing may be submitted in between and find nobody.
            self._workers.discard(asyncio.current_task())

    async def _carry(self, batch: list[_Waiting[_Item, _Result]]) -> None:
        grant = None
        try:
            grant = await self._account_client.take(len(batch))
            granted = len(batch) if grant is None else grant.calls
            self._fail(batch[granted:], self._account_client.budget_exhausted())
            del batch[granted:]
            results = await self._account_client.send(lambda: self._send([waiting.item for waiting in batch]), grant)
        except CannotBeDone as error:
            self._blame(batch, error)
        except AutotagError as error:
            self._fail(batch, error)
        except asyncio.CancelledError:
            self._fail(batch, _closed())
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nobody may be left waiting for ever
            self._fail(batch, error)
        else:
            for waiting, result in zip(batch, results, strict=True):
                if isinstance(result, AutotagError):
                    self._fail([waiting], result)
                elif not waiting.future.done():
                    waiting.future.set_result(result)

    def _blame(self, batch: list[_Waiting[_Item, _Result]], error: CannotBeDone) -> None:
        """The call as a whole was refused: with several items in it, find the one at fault by sending each alone."""
        if len(batch) == 1:
            self._fail(batch, error)
            return
        for waiting in reversed(batch):
            waiting.alone = True
            self._queue.appendleft(waiting)

    def _next_batch(self) -> list[_Waiting[_Item, _Result]]:
        batch: list[_Waiting[_Item, _Result]] = []
        size_bytes = 0
        while self._queue and len(batch) < self._limits.items:
            first = self._queue[0]
            full = batch and (first.alone or size_bytes + first.size_bytes > self._limits.size_bytes)
            if full and not first.future.done():
                break
            self._queue.popleft()
            if first.future.done():  # its image is waited for no longer
                continue
            batch.append(first)
            size_bytes += first.size_bytes
            if first.alone:
                break
        return batch

    def _all_waiting(self) -> list[_Waiting[_Item, _Result]]:
        everything = list(self._queue)
        self._queue.clear()
        return everything

    @staticmethod
    def _fail(batch: list[_Waiting[_Item, _Result]], error: Exception) -> None:
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_exception(_twin(error) if len(batch) > 1 else error)


def _twin(error: Exception) -> Exception:
    """An equal error: a shared one would gather the traceback of every place it is raised at.

    Not by `copy`, which calls the constructor with the message alone.
    """
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    return twin


def _closed() -> TryLater:
    return TryLater("the service is stopping; the call was broken off", reason="stopping")

"""A pool of children that is there only while there is work for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from worker.supervision.pool import Pool

IDLE_S = 30.0
"""For so long a pool without work is kept."""

_P = TypeVar("_P", bound=Pool)


class OnDemand(Generic[_P]):
    """Starts the pool that `make` gives when it is used, and closes it when nobody has used it for `IDLE_S`."""

    def __init__(self, make: Callable[[], _P]) -> None:
        self._make = make
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.pool: _P | None = None
        """None while there is none."""

    @asynccontextmanager
    async def used(self) -> AsyncIterator[_P]:
        """The pool, which stays for the block."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._users += 1
        try:
            if self.pool is None:
                self.pool = self._make()
                await self.pool.start()
            yield self.pool
        finally:
            self._users -= 1
            if not self._users and self.pool is not None:
                self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._close_soon)

    def _close_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self, *, at_once: bool = False) -> None:
        """Close the pool, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pool, self.pool = self.pool, None
        if pool is not None:
            await pool.close(at_once=at_once)
        for task in list(self._closing):
            if task is not asyncio.current_task():
                await task

"""Runs calls that may block for ever (a dead file server, a silent name server), each in a thread of its own.

asyncio's own executor has few threads and is waited for at exit: a handful of hung calls would stop every other call
and then the shutdown. Here a call that exceeds its timeout is abandoned in a daemon thread; the number of these threads
is limited.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from worker.errors import exhausted
from worker.supervision.shares import Shares

T = TypeVar("T")


class ThreadsTaken(TimeoutError):
    """The call was not made: the threads, or the holder's share of them, are busy."""


class BlockingCalls:
    """Runs at most `limit` blocking calls at once, including abandoned ones.

    Those for whom they are made have shares of them, so that calls of one that never return leave threads for others.
    """

    def __init__(self, limit: int) -> None:
        self._share = Shares(limit)
        self._busy = 0
        self._started = 0
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def is_full_for(self, holder: str = "") -> bool:
        """Whether a call made now for this holder would be refused at once."""
        return not self._share.may_take(holder, time.monotonic())

    async def call(
        self, function: Callable[[], T], *, timeout_s: float, discard: Callable[[T], None], holder: str = ""
    ) -> T:
        """Call `function` in a thread and return its result. Raises what it raises.

        Raises TimeoutError when the call takes too long, or ThreadsTaken, at once, when the threads, or the holder's
        share of them, are busy. `discard` gets a result that arrives after the timeout. Raises ResourceExhausted when
        no thread can be started.
        """
        self._share.known.see(holder, time.monotonic())
        if self.is_full_for(holder):
            raise ThreadsTaken("every thread is taken by a call that has not come back")
        self._have_thread()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def finish(value: T | None, error: BaseException | None) -> None:
            self._busy -= 1
            self._share.give_back(holder)
            if outcome.done():
                if error is None:
                    discard(value)  # type: ignore[arg-type]  # without an error there is a value
            elif error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(value)  # type: ignore[arg-type]  # the same

        def work() -> None:
            value, error = _outcome_of(function)
            try:
                loop.call_soon_threadsafe(partial(finish, value, error))
            except RuntimeError:  # the loop has been closed meanwhile
                if error is None:
                    discard(value)  # type: ignore[arg-type]  # the same

        self._share.take(holder)
        self._run_in_thread(work)
        async with asyncio.timeout(timeout_s):
            return await outcome

    def _run_in_thread(self, work: Callable[[], None]) -> None:
        """Give `work` to a free thread: no call ever queues behind a hung one."""
        self._busy += 1
        self._jobs.put(work)

    def _have_thread(self) -> None:
        """Start a thread if none is free."""
        if self._busy < self._started:
            return
        try:
            threading.Thread(target=self._work_loop, name="blocking calls", daemon=True).start()
        except RuntimeError as error:
            raise exhausted(error) or error from error
        self._started += 1

    def _work_loop(self) -> None:
        while True:
            self._jobs.get()()


def _outcome_of(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001 - passed on to the waiting caller
        return None, error

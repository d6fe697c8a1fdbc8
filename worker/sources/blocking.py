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

from worker.errors import TryLater, exhausted
from worker.supervision.shares import OVER_SHARE, Shares

T = TypeVar("T")


class NoThreadFree(TryLater):
    """The call was not made: that says nothing about what it would have reached, and is no attempt."""

    def __init__(self, holder: str) -> None:
        super().__init__(
            f"every thread that calls to {holder or 'it'} may have is taken by one that has not come back",
            reason=OVER_SHARE,
            counted=False,
        )


class BlockingCalls:
    """Runs at most `limit` blocking calls at once, including abandoned ones.

    Those for whom they are made have shares of them, so that calls of one that never return leave threads for others.
    """

    def __init__(self, limit: int) -> None:
        self._share = Shares(limit)
        self._busy = 0
        self._started = 0
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._abandoned_s: dict[str, list[float]] = {}
        """By holder, when the calls began that were given up and have not come back."""

    def is_full_for(self, holder: str = "") -> bool:
        """Whether a call made now for this holder would be refused at once."""
        return not self._share.may_take(holder, time.monotonic())

    def hangs_for_s(self, holder: str) -> float | None:
        """How long the latest of the holder's calls takes that were given up and have not come back; None without."""
        began_s = self._abandoned_s.get(holder)
        return time.monotonic() - max(began_s) if began_s else None

    async def call(
        self, function: Callable[[], T], *, timeout_s: float, discard: Callable[[T], None], holder: str = ""
    ) -> T:
        """Call `function` in a thread and return its result. Raises what it raises.

        Raises TimeoutError when the call takes too long, and NoThreadFree at once when the threads, or the holder's
        share of them, are busy. `discard` gets a result that arrives after the timeout. Raises ResourceExhausted when
        no thread can be started.
        """
        began_s = time.monotonic()
        self._share.known.see(holder, began_s)
        if self.is_full_for(holder):
            raise NoThreadFree(holder)
        self._have_thread()
        loop = asyncio.get_running_loop()
        returned = False
        outcome: asyncio.Future[T] = loop.create_future()

        def finish(value: T | None, error: BaseException | None) -> None:
            nonlocal returned
            returned = True
            self._busy -= 1
            self._share.give_back(holder)
            self._forget_abandoned(holder, began_s)
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
        timer = loop.call_later(timeout_s, _time_out, outcome)
        try:
            return await outcome
        finally:
            timer.cancel()
            if not returned:
                self._abandoned_s.setdefault(holder, []).append(began_s)

    def _forget_abandoned(self, holder: str, began_s: float) -> None:
        """A call has come back; if it had been given up, it hangs no longer."""
        began = self._abandoned_s.get(holder, [])
        if began_s in began:
            began.remove(began_s)
            if not began:
                del self._abandoned_s[holder]

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


def _time_out(outcome: asyncio.Future[T]) -> None:
    if not outcome.done():
        outcome.set_exception(TimeoutError())


def _outcome_of(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001 - passed on to the waiting caller
        return None, error

"""Writes ended events into the history on disk, from a thread of its own, in batches.

An event pays for a place in a queue and nothing else: what is kept of it is worked out in the thread. Whatever is wrong
with the file (a full disk, a directory that can't be written, damage) costs history and never an event: what can't be
written is dropped, counted, and reported once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from worker.errors import Unavailable
from worker.operations.history.day import DayStep, day_step
from worker.operations.history.file import FILE_NAME, DamagedHistory, HistoryFile, search, set_aside
from worker.operations.history.kept import HistoryPage, HistoryQuery, KeptResult
from worker.operations.history.throughput import outcome_of

if TYPE_CHECKING:
    from worker.operations.history.history import EndedDelivery

_log = structlog.get_logger(__name__)

_MAXIMUM_PENDING = 2000
_BATCH_EVERY_S = 1.0
_PRUNE_EVERY_S = 60.0
_OPEN_AGAIN_AFTER_S = 30.0
_CLOSE_WITHIN_S = 2.0

OnDay = Callable[[list[tuple[int, DayStep]]], None]


@dataclass(frozen=True, slots=True)
class HistoryState:
    """How the history on disk is. `problem`: why nothing is written; `set_aside`: what has been done with a damaged
    file; `lost`: events that ended without being written.
    """

    problem: str | None = None
    set_aside: str | None = None
    lost: int = 0


class HistoryWriter:
    """The thread, from `start` to `close`. `add` is called from the event loop alone.

    `on_lost` is called from the thread with the number of events that could not be written.
    """

    def __init__(
        self,
        directory: Path,
        maximum_bytes: int,
        maximum_age_s: float,
        on_lost: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self.path = directory / FILE_NAME
        self._maximum_bytes = maximum_bytes
        self._maximum_age_s = maximum_age_s
        self._on_lost = on_lost
        self._pending: deque[tuple[EndedDelivery, float]] = deque()
        self._dropped = 0
        self._on_day: OnDay | None = None
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._ending = threading.Event()
        self._file: HistoryFile | None = None
        self._open_from_s = 0.0
        self._prune_from_s = 0.0
        self.state = HistoryState()

    def start(self, on_day: OnDay) -> None:
        """Start the thread. `on_day` is called in the event loop with the counts of the last day, once read."""
        loop = asyncio.get_running_loop()

        def pass_on(steps: list[tuple[int, DayStep]]) -> None:
            try:
                loop.call_soon_threadsafe(on_day, steps)
            except RuntimeError:  # the loop has been closed meanwhile
                return

        self._on_day = pass_on
        self._thread.start()

    @property
    def is_writing(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    def add(self, ended: EndedDelivery, clock_s: float) -> None:
        """An event has ended at a moment of the wall clock. Takes no time; beyond a bound the event is dropped."""
        if len(self._pending) < _MAXIMUM_PENDING:
            self._pending.append((ended, clock_s))
        else:
            self._dropped += 1

    async def close(self) -> None:
        """Write what is pending and close the file; a disk that hangs is not waited for."""
        self._ending.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _CLOSE_WITHIN_S)

    async def search(self, query: HistoryQuery) -> HistoryPage:
        """What is found in the file. Raises Unavailable."""
        return await asyncio.to_thread(search, self.path, query)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        self._work()
        while not self._ending.wait(_BATCH_EVERY_S):
            self._work()
        self._work()
        if self._file is not None:
            self._file.close()

    def _work(self) -> None:
        """Write what has come since the last time. A fault of the file is noted; another fault is logged."""
        batch = [self._pending.popleft() for _ in range(len(self._pending))]
        lost, self._dropped = self._dropped, 0
        try:
            written = self._write(batch)
        except DamagedHistory as error:
            written = False
            self._set_aside(error)
        except Unavailable as error:
            written = False
            self._let_go(str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must end neither the thread nor an event
            written = False
            _log.error("unexpected error in the history", exc_info=error)
            self._let_go(f"unexpected {type(error).__name__}: {error}")
        lost += 0 if written else len(batch)
        if lost:
            self.state = replace(self.state, lost=self.state.lost + lost)
            self._on_lost(lost)

    def _write(self, batch: list[tuple[EndedDelivery, float]]) -> bool:
        """Whether the batch is written; it is not for a while after the file could not be used."""
        if self._file is None:
            if time.monotonic() < self._open_from_s:
                return False
            self._file = HistoryFile(self.path, self._maximum_bytes, self._maximum_age_s)
            if self._on_day is not None:
                self._on_day(self._file.day(day_step(time.time())))
                self._on_day = None  # all that comes from now on is counted in memory too
        steps: dict[int, DayStep] = {}
        results = []
        for ended, clock_s in batch:
            steps.setdefault(day_step(clock_s), DayStep()).add(outcome_of(ended.ending, ended.status))
            kept = KeptResult.of(ended, clock_s)
            if kept is not None:
                results.append(kept)
        if steps:
            self._file.add(results, steps)
        if time.monotonic() >= self._prune_from_s:
            self._prune_from_s = time.monotonic() + _PRUNE_EVERY_S
            self._file.prune(time.time(), day_step(time.time()))
        if self._file.is_in_place:
            self._note_problem(None)
            return True
        self._let_go(f"{self.path} has been deleted or replaced; it is made again")
        self._open_from_s = 0.0
        return False

    def _set_aside(self, error: DamagedHistory) -> None:
        self._let_go(None)
        self._open_from_s = 0.0  # the next one is begun at once
        try:
            aside = set_aside(self.path, error.inode)
        except Unavailable as another:
            self._let_go(f"it is damaged ({error}), and {another}")
            return
        words = f"The history was damaged ({error}). It has been set aside as {aside}, and another one begun."
        _log.warning("the history was damaged and is set aside; another one is begun", file=str(aside), why=str(error))
        self.state = replace(self.state, problem=None, set_aside=words)

    def _let_go(self, problem: str | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._open_from_s = time.monotonic() + _OPEN_AGAIN_AFTER_S
        self._note_problem(problem)

    def _note_problem(self, problem: str | None) -> None:
        if problem is not None and self.state.problem is None:
            _log.warning("ended events are not written into the history; nothing else is affected", why=problem)
        elif problem is None and self.state.problem is not None:
            _log.info("ended events are written into the history again")
        if problem != self.state.problem:
            self.state = replace(self.state, problem=problem)

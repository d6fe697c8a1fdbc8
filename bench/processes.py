"""What processes use, read from /proc: processor time, resident memory, and who listens on a port.

A `Watch` notes the processor time of groups of processes several times a second, so that what a steady window cost can
be said afterwards, when it is known which part of the run was steady.
"""

from __future__ import annotations

import bisect
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LOOK_EVERY_S = 0.1
_LOOK_FOR_NEW_ONES_EVERY = 10
"""Looks: finding out who the children are reads all of /proc."""

Pids = Callable[[], Iterable[int]]
Groups = Mapping[str, Pids]


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, all threads and both modes; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def busy_s() -> float:
    """Processor time that the whole machine has used since it was started, stolen time included."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / _TICKS_PER_S


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (10^6 bytes); 0 once it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * _PAGE_BYTES / 1e6


def proportional_mb(pid: int) -> float:
    """Memory of a process in MB, what it shares with others split between them; 0 where that may not be read."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def children(pid: int) -> list[int]:
    """The living children of a process, and theirs."""
    with suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def command_line(pid: int) -> list[str]:
    """A process's arguments; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    with suppress(psutil.Error):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def listener(port: int) -> int | None:
    """Who listens on a local TCP port: a broker's process id from its URL."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return connection.pid
    return None


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Bind processes, each with all of its threads, to some cores."""
    allowed = set(cores)
    for pid in pids:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError):
                    os.sched_setaffinity(int(thread), allowed)


class Watch:
    """Notes what groups of processes use until it is closed. Times are those of `time.time`."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._times: list[float] = []
        self._notes: list[dict[str, float]] = []
        self._over = threading.Event()
        self._spent: dict[str, float] = dict.fromkeys(groups, 0.0)
        self._last: dict[str, dict[int, float]] = {name: {} for name in groups}
        self._members: dict[str, list[int]] = {}
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._note()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._note()

    def used_s(self, begin_s: float, end_s: float) -> dict[str, float]:
        """Processor seconds of each group between two moments, and of the whole machine as `machine`."""
        begin, end = self._at(begin_s), self._at(end_s)
        return {name: end[name] - begin[name] for name in begin}

    def _look(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            self._note()

    def _note(self) -> None:
        first_look = not self._times
        if len(self._times) % _LOOK_FOR_NEW_ONES_EVERY == 0:
            self._members = {name: list(pids()) for name, pids in self._groups.items()}
        for name, pids in self._members.items():
            # Summed up by differences: a child that has ended takes nothing back, and its successor starts at 0.
            last = self._last[name]
            now = {pid: cpu_s(pid) for pid in pids}
            self._spent[name] += sum(
                max(0.0, used - last.get(pid, used if first_look else 0.0)) for pid, used in now.items()
            )
            self._last[name] = last | now
        self._times.append(time.time())
        self._notes.append({**self._spent, "machine": busy_s()})

    def _at(self, moment_s: float) -> dict[str, float]:
        """What had been used at a moment, between two notes by straight line."""
        after = min(max(1, bisect.bisect_left(self._times, moment_s)), len(self._times) - 1)
        earlier, later = self._times[after - 1], self._times[after]
        share = min(1.0, max(0.0, (moment_s - earlier) / (later - earlier)))
        before, then = self._notes[after - 1], self._notes[after]
        return {name: before[name] + (then[name] - before[name]) * share for name in before}

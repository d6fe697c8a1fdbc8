"""Processes, and this process's descriptors, as tests examine them."""

from __future__ import annotations

import gc
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


def running(matches: Callable[[list[str]], bool]) -> list[psutil.Process]:
    """All processes on this machine whose command line matches. Left out: zombies, and those that end meanwhile."""
    found = []
    for process in psutil.process_iter():
        try:
            if matches(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def children_started_by(parent_pid: int) -> list[psutil.Process]:
    """Living children that the service `parent_pid` has started, also after its end: their command ends in its id."""
    return running(
        lambda words: words[-1:] == [str(parent_pid)] and any(word.startswith("worker.children.") for word in words)
    )


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; also when its id has been reused."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal. Asserts that the process was alive, which every fault test must prove."""
    assert not gone(process), f"{process} was gone before the signal was sent"
    process.send_signal(number)


def alive(pids: Sequence[int]) -> list[int]:
    """Those of `pids` that are still running, zombies not counted."""
    return [pid for pid in pids if _state(pid) not in (None, "Z")]


def open_descriptors() -> int:
    """How many descriptors this process has open; what garbage held, of this test or another, is closed first."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def descriptors(soft: int) -> Iterator[None]:
    """This process, and what it starts in the block, may have so many descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def all_descriptors_taken(*, freed_too: bool = False) -> Iterator[None]:
    """Take every descriptor that this process may have; with `freed_too`, also those that it gives back meanwhile.

    What garbage of other tests held is closed before, so that none of it comes free in the block.
    """
    taken: list[int] = []
    done = threading.Event()

    def take() -> None:
        with suppress(OSError):
            while not done.is_set():
                taken.append(os.open(os.devnull, os.O_RDONLY))

    def keep_taking() -> None:
        while not done.wait(0.001):
            take()

    gc.collect()
    highest = max(map(int, os.listdir("/proc/self/fd")))
    with descriptors(highest + 20):
        take()
        thread = threading.Thread(target=keep_taking)
        if freed_too:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if freed_too:
                thread.join()
            for each in taken:
                os.close(each)

"""The processor time that children have spent on images, by the clock that the kernel keeps of each process.

What a child spends before its first image, to load a model, does not count.
"""

from __future__ import annotations

import time
from contextlib import suppress

_OF_A_PROCESS = 2
"""CPUCLOCK_SCHED of the kernel, all threads together; clock_getcpuclockid(3) makes the same number."""

_MAXIMUM_CHILDREN = 16


class ProcessorTime:
    """The mean over all images so far, of all children of a pool."""

    def __init__(self) -> None:
        self._read_s: dict[int, float] = {}
        """Each child's clock when it was read last."""
        self._spent_s = 0.0
        self._images = 0

    @property
    def per_image_s(self) -> float:
        """Mean processor time of an image; 0 before the first."""
        return self._spent_s / self._images if self._images else 0.0

    def begin(self, pid: int) -> None:
        """A child is given work."""
        if pid not in self._read_s:
            with suppress(OSError):
                self._read_s[pid] = _clock_s(pid)
            while len(self._read_s) > _MAXIMUM_CHILDREN:
                del self._read_s[next(iter(self._read_s))]

    def end(self, pid: int, images: int) -> None:
        """A child has answered, and is still there. What it has begun besides is counted at the next answer."""
        before_s = self._read_s.get(pid)
        if before_s is None:
            return
        with suppress(OSError):
            now_s = _clock_s(pid)
            self._read_s[pid] = now_s
            self._spent_s += max(0.0, now_s - before_s)
            self._images += images


def _clock_s(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | _OF_A_PROCESS)

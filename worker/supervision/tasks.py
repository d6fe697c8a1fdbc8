"""How many processes and threads the service needs, and whether this user and this container may start so many.

Linux counts both alike: all of a user against RLIMIT_NPROC, which does not bind a superuser, and all of a control group
against `pids.max`. Without enough of them children and threads cannot be started, which would be found out late.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.supervision.cgroup import tasks_left

TOO_FEW_TASKS = "too_few_tasks"
"""The reason of a start that is refused, because its children could not all be started."""

_PROC = Path("/proc")

_OF_THE_PARENT = 24
"""Its threads while it is busy: for files, names, cloud calls' images, the log, HTTP."""

_OF_A_DECODER = 3
"""Itself, and the processes of an instance's images and of a large one."""

_OF_A_MODEL = 6
"""The model child besides its threads for computing."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Processes and threads: how many may be started, by which limit, and how many are needed at least."""

    left: int | None
    limit: str
    needed: int

    @property
    def message(self) -> str | None:
        """What is too small, and what to do; None where there are enough."""
        if self.left is None or self.left >= self.needed:
            return None
        return (
            f"this user or container may start {self.left} more processes and threads ({self.limit}), and at least "
            f"{self.needed} are needed: raise the limit (LimitNPROC= or TasksMax= in the unit, ulimit -u, "
            "--pids-limit), or set fewer decoder.children and tensorflow.threads"
        )


def tasks(decoders: int, model_threads: int | None) -> Tasks:
    """What the limits leave, for so many decoders and, if there is a model child, so many threads in it.

    Twice the decoders and one model more: children are replaced by successors that are started first.
    """
    model = 0 if model_threads is None else 2 * (_OF_A_MODEL + model_threads)
    found = [(left, name) for left, name in _limits() if left is not None]
    left, name = min(found, default=(None, ""))
    return Tasks(left, name, _OF_THE_PARENT + 2 * _OF_A_DECODER * decoders + model)


def _limits() -> Iterator[tuple[int | None, str]]:
    yield tasks_left(), "pids.max of its control group"
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.getuid() != 0:
        yield max(0, soft - _tasks_of(os.getuid())), "RLIMIT_NPROC"


def _tasks_of(user: int) -> int:
    """How many processes and threads a user has."""
    number = 0
    for process in _PROC.iterdir():
        with suppress(OSError):  # it has ended meanwhile
            if process.name.isdecimal() and process.stat().st_uid == user:
                number += len(list((process / "task").iterdir()))
    return number

"""What this process's control groups allow it: cores, processes; how often the kernel has killed in them for memory.

Containers are limited by a quota of processor time, not by affinity: one with half a core still sees every core of the
machine. Both versions are read, also side by side: `cpu.max`, `memory.events` and `pids.max` of version 2
(https://docs.kernel.org/admin-guide/cgroup-v2.html), `cpu.cfs_quota_us` and `memory.oom_control` of version 1. Groups
are nested, and the tightest limit above this process counts.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_PROC = Path("/proc/self")
_NO_MEMORY_LIMIT = 1 << 60
"""Version 1 writes the largest number of pages, in bytes, where there is no limit."""


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy: which of its groups is mounted (`root`), and where. `controllers` is None for version 2."""

    root: PurePosixPath
    point: Path
    controllers: frozenset[str] | None


def usable_cores(proc: Path = _PROC) -> int:
    """How many cores this process may keep busy: those of its affinity, or fewer by its quota, rounded up; at least 1.

    `proc` is the process's folder in /proc.
    """
    affinity = len(os.sched_getaffinity(0))
    quotas = [quota for group in _groups(proc, "cpu") if (quota := _quota(group)) is not None]
    return max(1, min(affinity, math.ceil(min(quotas, default=affinity))))


def out_of_memory_kills(proc: Path = _PROC) -> int:
    """A count that rises when the kernel kills a process of this process's groups, as their memory has run out."""
    return sum(_kills(group) for group in _groups(proc, "memory"))


def memory_limit_bytes(proc: Path = _PROC) -> int | None:
    """How much memory this process's groups may use together; None without a limit."""
    limits = [
        int(words[0])
        for group in _groups(proc, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (words := _words(group / name)) and words[0].isdecimal() and int(words[0]) < _NO_MEMORY_LIMIT
    ]
    return min(limits, default=None)


def tasks_left(proc: Path = _PROC) -> int | None:
    """How many processes and threads may still be started in this process's groups; None without a limit."""
    left = [
        max(0, int(most[0]) - int(now[0]))
        for group in _groups(proc, "pids")
        if (most := _words(group / "pids.max")) and most[0].isdecimal()
        if (now := _words(group / "pids.current")) and now[0].isdecimal()
    ]
    return min(left, default=None)


def _quota(group: Path) -> float | None:
    """The cores' worth of processor time that a group may use; None without a limit."""
    match _words(group / "cpu.max"):
        case [quota, period, *_] if quota != "max":
            return _ratio(quota, period)
    match _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us"):
        case [quota], [period] if not quota.startswith("-"):
            return _ratio(quota, period)
    return None


def _ratio(quota: str, period: str) -> float | None:
    try:
        return int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def _kills(group: Path) -> int:
    for name in ("memory.events", "memory.oom_control"):
        words = _words(group / name)
        for key, value in zip(words[::2], words[1::2], strict=False):
            if key == "oom_kill" and value.isdecimal():
                return int(value)
    return 0


def _groups(proc: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in, from its own to the outermost that can be seen."""
    try:
        memberships = (proc / "cgroup").read_text().splitlines()
        mounts = list(_mounts((proc / "mountinfo").read_text()))
    except OSError:
        return
    for membership in memberships:
        _, _, rest = membership.partition(":")
        controllers, _, path = rest.partition(":")
        version_2 = not controllers
        if not version_2 and controller not in controllers.split(","):
            continue
        for mount in mounts:
            if (mount.controllers is None) if version_2 else (controller in (mount.controllers or ())):
                yield from _upwards(mount, PurePosixPath(path))
                break


def _upwards(mount: _Mount, path: PurePosixPath) -> Iterator[Path]:
    """From the group at `path` up to the mounted one. Of a group outside what is mounted only that can be seen."""
    below = path.relative_to(mount.root) if path.is_relative_to(mount.root) else PurePosixPath()
    if ".." in below.parts:  # the group is outside our namespace
        below = PurePosixPath()
    group = mount.point / below
    while group != mount.point:
        yield group
        group = group.parent
    yield mount.point


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """The mounted hierarchies of control groups; the form of a line is in proc(5)."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = None if kind[0] == "cgroup2" else frozenset(kind[2].split(","))
        yield _Mount(PurePosixPath(_unescaped(fields[3])), Path(_unescaped(fields[4])), controllers)


def _unescaped(path: str) -> str:
    """A path of mountinfo, in which a blank is written as `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []

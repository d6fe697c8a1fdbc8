"""What a decoder gives up before it sees its first image: memory, processor time, files, network, system calls.

The measures are taken one after another, each is tried out, and what is in force is reported, so that an operator can
see it and a strict setting can insist on it. A measure that the machine does not offer is left out, never pretended.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from dataclasses import dataclass
from enum import StrEnum

from worker.children import landlock, seccomp

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MOST_OPEN_FILES = 64
_LARGEST_FILE_BYTES = 64 << 20


class Level(StrEnum):
    """How far the sandbox got; each level includes those before it."""

    NONE = "none"
    LIMITS = "limits"
    """Resource limits, no new privileges, no core file."""
    LANDLOCK = "landlock"
    """No file can be opened, no connection made."""
    SECCOMP = "seccomp"
    """Only the system calls that decoding needs."""


STRICTEST = Level.SECCOMP


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one decoder may use."""

    memory_bytes: int


def enter(allowance: Allowance) -> Level:
    """Give everything up for good, and say how far that got. Call it when everything has been imported."""
    _limit(resource.RLIMIT_AS, allowance.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, _LARGEST_FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, _MOST_OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    if not _no_new_privileges():
        return Level.NONE
    library = seccomp.library()
    locked = landlock.deny_everything() and not _can_open_files()
    # Taken even where Landlock is missing: it is worth having, if not worth the name of its level.
    filtered = library is not None and seccomp.allow_only_what_decoding_needs(library) and not _can_make_sockets()
    if not locked:
        return Level.LIMITS
    return Level.SECCOMP if filtered else Level.LANDLOCK


def allow_processor_time(seconds: int) -> None:
    """Let this process use so much more processor time; beyond it the kernel ends it with SIGXCPU.

    The limit counts from the start of the process, so it is set anew for every image.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _limit(which: int, most: int) -> None:
    """Lower a limit for good; one that is lower already stays."""
    _, hard = resource.getrlimit(which)
    lower = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (lower, lower))


def _no_new_privileges() -> bool:
    """No set-uid program and no file capability can raise this process again; other processes cannot look into it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return bool(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def _can_open_files() -> bool:
    try:
        os.close(os.open("/", os.O_RDONLY))
    except OSError:
        return False
    return True


def _can_make_sockets() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True

"""The sandboxes of the children: what each gives up before it sees what is not trusted.

A decoder gives up memory, processor time, files, network and system calls before its first image; a model child, before
it loads its model, which is a program, all but threads and reading its own package.

The measures are applied one after another and each is verified. The level reached is reported, so that an operator can
see it and the setting `strict` can demand it. A measure that the machine does not offer is skipped, and the level shows
that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from worker.children import landlock, seccomp

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION = 0x20080522
_M_ARENA_MAX = -8
_MAXIMUM_OPEN_FILES = 8
"""Numbers below which descriptors are: of what comes for an image, with the standard ones. None is kept beside many."""

_MAXIMUM_FILE_BYTES = 64 << 20


class Level(StrEnum):
    """How strict the sandbox is; each level includes those before it."""

    NONE = "none"
    LIMITS = "limits"
    """Resource limits, no new privileges, no core file."""
    LANDLOCK = "landlock"
    """No file can be opened, but those of the child's own model, and no connection made."""
    SECCOMP = "seccomp"
    """Only the system calls that the work needs."""


STRICTEST = Level.SECCOMP


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one decoder may use. `threads`: a library that it has loaded starts some for every image."""

    memory_bytes: int
    threads: bool = False


def enter(allowance: Allowance, seen: Level | None = None) -> Level:
    """Enter the sandbox irrevocably; returns the level reached. Call it when everything has been imported.

    `seen`: the level that another process like this one has reached, of which attempts have shown that it holds.

    Threads that are allowed share the limits of memory and of processor time; more than one of them at work would gain
    nothing, and each would reserve address space of its own.
    """
    if allowance.threads:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    _limit(resource.RLIMIT_AS, allowance.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, _MAXIMUM_FILE_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    if not allowance.threads:
        _limit(resource.RLIMIT_NPROC, 0)
    if not (_no_new_privileges() and _drop_capabilities()):
        _limit(resource.RLIMIT_NPROC, 0)
        return Level.NONE
    library, parent = seccomp.library(), os.getppid()
    denied = landlock.deny_everything() and (seen is not None or not (_can_open_files() or _can_read_memory(parent)))
    # Applied even without Landlock: it is useful, although the level reached is then only LIMITS.
    filtered = (
        library is not None
        and seccomp.allow_only_what_decoding_needs(library, threads=allowance.threads)
        and (seen is not None or not (_can_make_sockets() or _can_signal(parent) or _can_look_at_paths()))
    )
    if not filtered:
        # The filter distinguishes threads from processes, this limit does not. Nor does it bind root.
        _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_NOFILE, _MAXIMUM_OPEN_FILES)  # only now: attempts need some
    reached = _level(denied=denied, filtered=filtered)
    return reached if seen is None else min(reached, seen, key=list(Level).index)


def enter_for_server() -> None:
    """Give up, irrevocably, what a decoder's fork server does not need: files, network, capabilities.

    It sees no image, so its system calls are not filtered. What it forks enters a sandbox of its own inside this one,
    from which it can't reach the server: call it when everything has been imported.
    """
    seccomp.library()
    _limit(resource.RLIMIT_CORE, 0)
    if _no_new_privileges() and _drop_capabilities():
        landlock.deny_everything()


_MODEL_READS = tuple(
    map(Path, ("/proc/cpuinfo", "/proc/self/cmdline", "/proc/self/task", "/sys/devices/system/cpu", "/dev/urandom"))
)
"""What the runtimes read beside the package: the processor's features, randomness, and about this process itself."""

_MODEL_OPEN_FILES = 256


def enter_for_model(packages: Sequence[Path]) -> Level:
    """Enter a model child's sandbox irrevocably; returns the level reached.

    What can still be read is `packages` and what the runtimes ask about the processor. Call it when the runtimes have
    been imported and before they load anything. A thread that runs already would stay outside: then the level is
    `NONE`.
    """
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _MODEL_OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    library, parent = seccomp.library(), os.getppid()
    alone = len(os.listdir("/proc/self/task")) == 1
    if not (_no_new_privileges() and _drop_capabilities() and alone):
        return Level.NONE
    denied = landlock.deny_everything(but_reading=(*packages, *_MODEL_READS)) and not (
        _can_open_files() or _can_read_memory(parent)
    )
    filtered = (
        library is not None
        and seccomp.allow_only_what_models_need(library)
        and not (_can_make_sockets() or _can_signal(parent))
    )
    return _level(denied=denied, filtered=filtered)


def _level(*, denied: bool, filtered: bool) -> Level:
    """The level of a process whose files and connections are denied, and whose calls are filtered."""
    if not denied:
        return Level.LIMITS
    return Level.SECCOMP if filtered else Level.LANDLOCK


RESERVE_BYTES = 8 << 20
"""What an image that has used up all memory leaves for saying so. It takes address space only."""


def address_space_bytes() -> int:
    """Address space of this process now."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def limits_of_an_image(maximum_cpu_s: int, quick_s: float | None) -> Iterator[None]:
    """Limit processor time, and keep a reserve of the memory that is allowed, in the block.

    Beyond `quick_s` the kernel ends the process with SIGPROF; beyond the maximum, which is in whole seconds and rounded
    up, with SIGXCPU. Both count from the start of the process, so they are set for every image.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + maximum_cpu_s + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    memory = resource.getrlimit(resource.RLIMIT_AS)[1]
    if memory != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (memory - RESERVE_BYTES, memory))
    if quick_s is not None:
        signal.setitimer(signal.ITIMER_PROF, quick_s)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        if quick_s is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)


def _limit(which: int, maximum: int) -> None:
    """Lower a resource limit irrevocably; one that is lower already stays."""
    _, hard = resource.getrlimit(which)
    lower = maximum if hard == resource.RLIM_INFINITY else min(maximum, hard)
    resource.setrlimit(which, (lower, lower))


def _no_new_privileges() -> bool:
    """Set `no_new_privs`, so that no set-uid program or file capability can give this process more rights.

    Also makes it non-dumpable: other processes of the user cannot trace it or read its memory.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return bool(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def _drop_capabilities() -> bool:
    """Give up what root may do beyond others; a process without capabilities loses nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)  # of this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, of 64 bits each
    libc.capset(header, sets)  # a service manager may refuse this call, having taken them away already
    return bool(libc.capget(header, sets) == 0 and not any(sets))


def _can_read_memory(pid: int) -> bool:
    """Whether another process's memory could be read: then an address that is not mapped is what is wrong."""
    libc = ctypes.CDLL(None, use_errno=True)
    byte = ctypes.create_string_buffer(1)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(byte), 1)
    there = (ctypes.c_size_t * 2)(1, 1)
    done = libc.process_vm_readv(pid, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0))
    return bool(done >= 0 or ctypes.get_errno() == errno.EFAULT)


def _can_open_files() -> bool:
    try:
        os.close(os.open("/", os.O_RDONLY))
    except OSError:
        return False
    return True


def _can_look_at_paths() -> bool:
    """Landlock does not forbid it."""
    try:
        os.stat("/")
    except OSError:
        return False
    return True


def _can_signal(pid: int) -> bool:
    """Landlock forbids it since version 6 only. Signal 0 is none, and takes the same rights."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _can_make_sockets() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True

"""seccomp: of some three hundred system calls a decoder needs about fifty, a model some more; all others fail (EPERM).

The filter is built by the system's libseccomp, which knows the numbers of the calls on every architecture. Where it is
not installed there is no filter.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
from collections.abc import Callable
from functools import cache

_LIBRARY = "libseccomp.so.2"
_ALLOW = 0x7FFF0000
_FAIL = 0x00050000  # with an errno in the lower half
_EQUAL, _MASKED_EQUAL = 4, 7
_CLONE_THREAD = 0x10000
_CLONE_FLAGS_ARGUMENT = 1 if platform.machine() == "s390x" else 0

_ALLOWED = (
    # files that are open already, and the socket to the parent
    "read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "_llseek", "close", "dup",
    "fstat", "fstat64", "recvmsg", "sendmsg", "recvfrom", "sendto", "poll", "ppoll",
    # memory
    "brk", "munmap", "mremap", "madvise",
    # time, randomness and limits
    "clock_gettime", "clock_getres", "gettimeofday", "time", "getrandom", "getrusage", "getrlimit", "ugetrlimit",
    "setrlimit", "setitimer", "sched_yield", "sched_getaffinity",
    # signals, locks and exit
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall", "futex",
    "rseq", "set_robust_list", "getpid", "gettid", "exit", "exit_group",
)  # fmt: skip
"""Names that an architecture does not have are skipped."""


_MAPPING = ("mmap", "mmap2", "mprotect")
"""What gives memory its rights, among them the one to execute it."""

_READING = (
    "newfstatat", "statx",
    "access", "faccessat", "faccessat2", "stat", "stat64", "lstat", "lstat64", "fstatat64", "statfs", "statfs64",
    "fstatfs", "fstatfs64", "readlink", "readlinkat", "getdents", "getdents64", "getcwd", "fadvise64",
    "preadv", "preadv2",
)  # fmt: skip
"""What reading files takes beside `open`; which files that may be is Landlock's matter."""

_RUNTIMES = (
    "sched_getparam", "sched_getscheduler", "sched_setaffinity", "getcpu", "nanosleep", "clock_nanosleep", "sysinfo",
    "uname", "getppid", "getuid", "geteuid", "getgid", "getegid", "set_tid_address", "membarrier",
)  # fmt: skip
"""What LiteRT and TensorFlow ask of the machine, and how threads are bound to cores."""

_DESCRIPTOR_COMMANDS = (
    fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_GET_SEALS,
)  # fmt: skip
"""Of `fcntl`. Others could have the kernel signal another process (`F_SETOWN`), or hold up the owner of a file."""

_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
_PR_SET_NAME = 15
_IS_TERMINAL, _CLOSE_ON_EXEC = 0x5401, 0x5451


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The system's libseccomp, or None. Must be loaded while files can still be opened."""
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None


def allow_only_what_decoding_needs(library: ctypes.CDLL, *, threads: bool = False) -> bool:
    """Forbid every other system call, irrevocably. False where no filter could be installed.

    `no_new_privileges` must have been set before. `threads`: more of them may be started, but no process.
    """

    return _install(library, lambda rules: _rules_of_decoders(rules, threads=threads))


def allow_only_what_models_need(library: ctypes.CDLL) -> bool:
    """The same for a model's runtime: threads, and files that are read; no process, socket, signal or tracing."""

    return _install(library, _rules_of_models)


def allowed_calls() -> dict[str, dict[str, bool]]:
    """The calls that each filter allows, by kind of process; whether only with some arguments. For docs/security.md."""
    found = {}
    for kind, add_rules in (("decoder", _rules_of_decoders), ("model", _rules_of_models)):
        names = _Names()
        add_rules(names)
        found[kind] = names.conditional
    return found


def _rules_of_decoders(rules: _Filter, *, threads: bool = False) -> None:
    rules.allow_common()
    for name in _MAPPING:
        rules.allow(name, _Comparison(2, _MASKED_EQUAL, mmap.PROT_EXEC, 0))
    if threads:
        rules.allow_threads()


def _rules_of_models(rules: _Filter) -> None:
    rules.allow_common()
    rules.allow_threads()
    for name in (*_MAPPING, *_READING, *_RUNTIMES):  # XNNPACK writes code of its own
        rules.allow(name)
    for argument, name in ((1, "open"), (2, "openat")):
        rules.allow(name, _Comparison(argument, _MASKED_EQUAL, _WRITING, os.O_RDONLY))
    rules.allow("prctl", _equal(0, _PR_SET_NAME))
    for command in (_IS_TERMINAL, _CLOSE_ON_EXEC):  # what opening a file in Python takes
        rules.allow("ioctl", _equal(1, command))


def _install(library: ctypes.CDLL, add_rules: Callable[[_Filter], None]) -> bool:
    """Build a filter that allows what `add_rules` names, and enter it."""
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_FAIL | errno.EPERM))
    if not context:
        return False
    try:
        add_rules(_Filter(library, context))
        return bool(library.seccomp_load(context) == 0)
    finally:
        library.seccomp_release(context)


class _Filter:
    """A filter that is being built. A system call that the architecture does not have is skipped."""

    def __init__(self, library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
        self._library = library
        self._context = context

    def allow_common(self) -> None:
        """Allow what every child needs."""
        for name in _ALLOWED:
            self.allow(name)
        for command in _DESCRIPTOR_COMMANDS:
            for name in ("fcntl", "fcntl64"):
                self.allow(name, _equal(1, command))
        self.allow("prlimit64", _equal(0, 0))  # its own limits only
        for name in ("kill", "tgkill"):  # its own process, which the fault handler means
            self.allow(name, _equal(0, os.getpid()))

    def allow_threads(self) -> None:
        """Allow `clone` with the flag of a thread. The flags of `clone3` cannot be seen: glibc does without it."""
        self.allow("clone", _Comparison(_CLONE_FLAGS_ARGUMENT, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD))
        self._add(_FAIL | errno.ENOSYS, "clone3")

    def allow(self, name: str, only_if: _Comparison | None = None) -> None:
        """Allow one system call; `only_if` one of its arguments compares so."""
        self._add(_ALLOW, name, only_if)

    def _add(self, action: int, name: str, only_if: _Comparison | None = None) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        comparisons = (0, None) if only_if is None else (1, ctypes.byref(only_if))
        self._library.seccomp_rule_add_array(self._context, ctypes.c_uint32(action), number, *comparisons)


class _Names(_Filter):
    """A filter that is not built: it records what would be allowed."""

    def __init__(self) -> None:
        self.conditional: dict[str, bool] = {}

    def _add(self, action: int, name: str, only_if: _Comparison | None = None) -> None:
        if action == _ALLOW:
            self.conditional[name] = only_if is not None


def _equal(argument: int, value: int) -> _Comparison:
    return _Comparison(argument, _EQUAL, value, 0)

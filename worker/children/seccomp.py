"""seccomp: of some three hundred system calls a decoder needs about fifty; all others fail with EPERM.

The filter is built by the system's libseccomp, which knows the numbers of the calls on every architecture. Where it is
not installed there is no filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_LIBRARY = "libseccomp.so.2"
_ALLOW = 0x7FFF0000
_FAIL = 0x00050000  # with an errno in the lower half
_EQUAL, _MASKED_EQUAL = 4, 7
_CLONE_THREAD = 0x10000
_CLONE_FLAGS_ARGUMENT = 1 if platform.machine() == "s390x" else 0

_ALLOWED = (
    # files that are open already, and the socket to the parent
    "read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "_llseek", "close", "fcntl", "dup",
    "fstat", "fstat64", "newfstatat", "statx", "recvmsg", "sendmsg", "recvfrom", "sendto", "poll", "ppoll",
    # memory
    "brk", "mmap", "mmap2", "munmap", "mremap", "mprotect", "madvise",
    # time, randomness and limits
    "clock_gettime", "clock_getres", "gettimeofday", "time", "getrandom", "getrusage", "getrlimit", "ugetrlimit",
    "setrlimit", "sched_yield", "sched_getaffinity",
    # signals, locks and exit
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall", "futex",
    "rseq", "set_robust_list", "getpid", "gettid", "exit", "exit_group",
)  # fmt: skip
"""Names that an architecture does not have are skipped."""


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


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
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_FAIL | errno.EPERM))
    if not context:
        return False
    try:
        for name in _ALLOWED:
            _allow(library, context, name)
        _allow(library, context, "prlimit64", 0)  # its own limits only
        _allow(library, context, "tgkill", os.getpid())  # the fault handler kills its own process
        if threads:
            _allow_threads(library, context)
        return bool(library.seccomp_load(context) == 0)
    finally:
        library.seccomp_release(context)


def _allow(library: ctypes.CDLL, context: ctypes.c_void_p, name: str, first_argument: int | None = None) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return
    if first_argument is None:
        library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, 0, None)
    else:
        equal = _Comparison(0, _EQUAL, first_argument, 0)
        library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, 1, ctypes.byref(equal))


def _allow_threads(library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
    """Allow `clone` with the flag of a thread. The flags of `clone3` cannot be seen: glibc does without it."""
    clone = library.seccomp_syscall_resolve_name(b"clone")
    thread = _Comparison(_CLONE_FLAGS_ARGUMENT, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD)
    library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), clone, 1, ctypes.byref(thread))
    clone3 = library.seccomp_syscall_resolve_name(b"clone3")
    if clone3 >= 0:
        library.seccomp_rule_add_array(context, ctypes.c_uint32(_FAIL | errno.ENOSYS), clone3, 0, None)

"""Landlock: forbids this process to open files, to connect or bind sockets, and to signal or trace processes outside.

The ruleset handles every right and grants none, but to read what is named. Descriptors that are open already, or are
received later, stay usable. It holds for the calling thread and those that it starts afterwards.
The kernel's documentation: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# The same numbers on every architecture.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_ASK_FOR_VERSION = 1

_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""A version of Landlock, and the number of rights to files that there are since then; each right is one bit."""

_NETWORK_SINCE, _NETWORK_RIGHTS = 4, 0b11  # bind and connect TCP
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract Unix sockets and signals

_PATH_BENEATH = 1
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """The kernel's version of Landlock; 0 where it has none, or where it is turned off."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE_RULESET, None, 0, _ASK_FOR_VERSION)))


def deny_everything(but_reading: Iterable[Path] = ()) -> bool:
    """Give up, irrevocably, every right that this kernel's Landlock knows. False where nothing could be given up.

    The files of `but_reading`, and all below its directories, can still be read; one that does not exist is skipped.
    `no_new_privileges` must have been set before.
    """
    offered = version()
    if offered == 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    rights = max(count for since, count in _FILE_RIGHTS.items() if since <= offered)
    ruleset = _Ruleset((1 << rights) - 1, _NETWORK_RIGHTS, _SCOPES)
    # An older kernel rejects a structure with fields that it does not know.
    fields = 1 + (offered >= _NETWORK_SINCE) + (offered >= _SCOPES_SINCE)
    fd = int(libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), fields * ctypes.sizeof(ctypes.c_uint64), 0))
    if fd < 0:
        return False
    try:
        for path in but_reading:
            with suppress(OSError):
                _allow_reading(libc, fd, path)
        return bool(libc.syscall(_RESTRICT_SELF, fd, 0) == 0)
    finally:
        os.close(fd)


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: Path) -> None:
    """Add a rule for a file, or a directory and all below it. Raises `OSError`."""
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(_READ_FILE | (_READ_DIRECTORY if path.is_dir() else 0), parent)
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)

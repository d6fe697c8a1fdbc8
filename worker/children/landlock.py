"""Landlock: forbids this process to open files, to connect or bind sockets, and to signal processes outside.

The ruleset handles every right and grants none. Descriptors that are open already, or are received later, stay usable.
The kernel's documentation: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os

# The same numbers on every architecture.
_CREATE_RULESET = 444
_RESTRICT_SELF = 446
_ASK_FOR_VERSION = 1

_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""A version of Landlock, and the number of rights to files that there are since then; each right is one bit."""

_NETWORK_SINCE, _NETWORK_RIGHTS = 4, 0b11  # bind and connect TCP
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract Unix sockets and signals


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


def version() -> int:
    """The kernel's version of Landlock; 0 where it has none, or where it is turned off."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE_RULESET, None, 0, _ASK_FOR_VERSION)))


def deny_everything() -> bool:
    """Give up, irrevocably, every right that this kernel's Landlock knows. False where nothing could be given up.

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
        return bool(libc.syscall(_RESTRICT_SELF, fd, 0) == 0)
    finally:
        os.close(fd)

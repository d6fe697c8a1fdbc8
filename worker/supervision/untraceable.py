"""Keeps other processes of the same user, our own children first, from reading this one's memory and environment.

Both hold passwords and keys. Linux then gives `/proc/PID/environ`, `mem` and `fd` to root, refuses tracing, and writes
no core file: https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html. Root may still look, with `py-spy` too.
"""

from __future__ import annotations

import ctypes

_PR_SET_DUMPABLE = 4


def forbid_tracing() -> None:
    """Do it for this process. Programs that it starts begin without, and have to see to it themselves."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def allow_tracing() -> None:
    """Take it back, before any secret has been read."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)

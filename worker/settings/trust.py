"""Whether a settings file that lies in the current directory, and was not named, may be read.

Another user who can write to the directory in which a command is started could otherwise widen `sources.path_roots`, or
send every image to an address of their own. A file that is named is always read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_ROOT = 0


def why_not_read(path: Path) -> str | None:
    """Why the file is left out, in words; None when it may be read, or is not there.

    It, and a symbolic link that leads to it, must belong to the user of this process or to root. Others must not be
    able to write to it; its group may if that is the process's own.
    """
    try:
        found = [os.lstat(path), os.stat(path)]
    except OSError:
        return None  # not there, or a link to nothing: reading it says so where that matters
    for status in found:
        if status.st_uid not in (os.geteuid(), _ROOT):
            return f"it belongs to another user (uid {status.st_uid})"
    mode = found[-1].st_mode
    if mode & stat.S_IWOTH:
        return "every user may write to it"
    if mode & stat.S_IWGRP and found[-1].st_gid not in (os.getegid(), _ROOT):
        return f"another group (gid {found[-1].st_gid}) may write to it"
    return None

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
    able to write to it; its group may if that is the process's own. The same holds for the directories of both: who can
    write there can put another file in its place, even between this look and the reading. A sticky directory, such as
    /tmp, lets only owners do that.
    """
    try:
        link, file = os.lstat(path), os.stat(path)
        directories = [os.stat(each) for each in {path.absolute().parent, Path(os.path.realpath(path)).parent}]
    except OSError:
        return None  # not there, or a link to nothing: reading it says so where that matters
    if not _is_trusted(link.st_uid):
        return f"it belongs to another user (uid {link.st_uid})"
    if why := _why_open(file):
        return why.format("it")
    for directory in directories:
        sticky = directory.st_mode & stat.S_ISVTX and _is_trusted(directory.st_uid)
        if not sticky and (why := _why_open(directory)):
            return why.format("its directory")
    return None


def _is_trusted(uid: int) -> bool:
    return uid in (os.geteuid(), _ROOT)


def _why_open(found: os.stat_result) -> str | None:
    """Why others can change a file or directory, with a place for what it is; None when they cannot."""
    if not _is_trusted(found.st_uid):
        return f"{{}} belongs to another user (uid {found.st_uid})"
    if found.st_mode & stat.S_IWOTH:
        return "every user may write to {}"
    if found.st_mode & stat.S_IWGRP and found.st_gid not in (os.getegid(), _ROOT):
        return f"another group (gid {found.st_gid}) may write to {{}}"
    return None

"""Writing a small file as a whole or not at all, whatever happens in between: a full disk, a kill, a power cut."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

_OWNER_ONLY = 0o600


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file, or make it, so that every reader finds the old content or the new. Raises OSError.

    It keeps its mode; a new one is its owner's alone. Root writes for the owner of the file, or of its directory: the
    service has to be able to read it. A link is followed, and what it leads to replaced.
    """
    path = Path(os.path.realpath(path))
    new = path.with_name(f".{path.name.replace('_', '-')}.{secrets.token_hex(4)}.new")  # no secret by its name
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _take_over(file.fileno(), path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    _sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """A directory of the owner's alone; root makes it for the owner of the one above. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        hand_over(path)


def hand_over(path: Path) -> None:
    """What root has made belongs to the owner of the directory that it is in. Raises OSError."""
    if os.geteuid() == 0:
        above = path.parent.stat()
        os.chown(path, above.st_uid, above.st_gid)


def _take_over(descriptor: int, path: Path) -> None:
    """Owner and mode of the file that is replaced."""
    found = path.stat() if path.exists() else None
    if found is not None:
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    if os.geteuid() == 0:
        owner = found or path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync_directory(directory: Path) -> None:
    """Have the new name on the disk too; file systems that cannot are none the worse for it."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

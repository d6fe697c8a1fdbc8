"""Opens files below the configured roots.

A path is checked by the file that the kernel resolves it to, not by its text: the file is pinned first (`O_PATH`, which
opens neither devices nor FIFOs), the kernel is asked for its real path, and only then is that same file opened for
reading. Replacing a symbolic link in between has no effect.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from worker.errors import CannotBeDone, TryLater, exhausted
from worker.images.content import Content
from worker.images.format import HEAD_BYTES
from worker.settings import SourcesSettings
from worker.sources.breaker import SourceFailed

_SET_ROOTS = "add the directory to `sources.path_roots` in the settings if its files may be read"
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_MALFORMED = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


def open_path(path: str, settings: SourcesSettings) -> Content:
    """The file at `path`: absolute, or relative to the first root that has it. Blocks; run it in a thread.

    Raises the errors of `roots_of` and `open_below`, and TryLater for what is missing.
    """
    for root in roots_of(path, settings):
        if (content := open_below(root, path, settings)) is not None:
            return content
    raise missing(path, settings)


def roots_of(path: str, settings: SourcesSettings) -> list[str]:
    """Where the file may be: the innermost root around an absolute path, or each in turn for a relative one.

    Touches no file. Raises CannotBeDone for a path whose text alone leads out of the roots.
    """
    if not settings.path_roots:
        raise CannotBeDone(
            f"the file {path!r} may not be read: no directory is open to events; {_SET_ROOTS}", reason="path_no_roots"
        )
    roots = _absolute(settings.path_roots)
    inside = [root for root in roots if _is_below(os.path.abspath(os.path.join(root, path)), root)]
    if not inside:
        _raise_outside(path)
    return [max(inside, key=len)] if os.path.isabs(path) else inside


@lru_cache(maxsize=16)
def _absolute(roots: tuple[Path, ...]) -> tuple[str, ...]:
    """The roots as absolute paths, in their order, each once. Kept: they are the same for every event."""
    return tuple(dict.fromkeys(os.path.abspath(root) for root in roots))


def open_below(root: str, path: str, settings: SourcesSettings) -> Content | None:
    """The file at `path` in one of `roots_of` it; None where it is missing there. Blocks; run it in a thread.

    No other root is touched, unless a link leads there. Raises CannotBeDone for what must not be read or is not a
    regular file of an allowed size, SourceFailed when the file server cannot read it, TryLater for what this service
    may not read, ResourceExhausted when this machine has no descriptor left for it.
    """
    for spelling in _spellings(path):
        candidate = spelling if os.path.isabs(spelling) else os.path.join(root, spelling)
        if (pinned := _pin(candidate, path)) is not None:
            try:
                return _open_pinned(pinned, root, path, settings)
            except OSError as error:
                _raise_for(error, path)
            finally:
                os.close(pinned)
    return None


def missing(path: str, settings: SourcesSettings) -> TryLater:
    """The error of a file that is in none of the roots."""
    below = ", ".join(map(str, settings.path_roots))
    return TryLater(
        f"the file {path!r} is not there (looked below {below}); is the store mounted, has the file been moved?",
        reason="content_missing",
    )


def _spellings(path: str) -> list[str]:
    """The path, then with its accents composed, and decomposed: a copy by way of macOS changes one into the other."""
    if path.isascii():
        return [path]
    return list(dict.fromkeys((path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))))


def _pin(candidate: str, path: str) -> int | None:
    """A descriptor that refers to the file without opening it for reading, or None when there is no such file."""
    try:
        return os.open(candidate, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        # Another spelling of the name can be too long, where the name itself is not.
        if error.errno in _MISSING or (error.errno == errno.ENAMETOOLONG and not candidate.endswith(path)):
            return None
        _raise_for(error, path)


def _open_pinned(pinned: int, root: str, path: str, settings: SourcesSettings) -> Content:
    real = os.readlink(f"/proc/self/fd/{pinned}")
    # Its own root first: looking at another would take a file down with that one's server.
    if not any(_is_below(real, os.path.realpath(each)) for each in (root, *map(str, settings.path_roots))):
        _raise_outside(path)
    status = os.fstat(pinned)
    if not stat.S_ISREG(status.st_mode):
        raise CannotBeDone(
            f"{path!r} is {_kind(status.st_mode)}, not a file: publish the path of the image itself",
            reason="path_not_a_file",
        )
    if status.st_size == 0:
        raise CannotBeDone(f"the file {path!r} is empty: upload it again", reason="content_empty")
    if status.st_size > settings.maximum_bytes:
        raise CannotBeDone(
            f"the file {path!r} has {status.st_size:,} bytes, at most {settings.maximum_bytes:,} are read "
            "(`sources.maximum_bytes`)",
            reason="content_too_large",
        )
    fd = os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, HEAD_BYTES, 0)
    except OSError:
        os.close(fd)
        raise
    return Content(fd, status.st_size, f"path {path}", head)


def _is_below(path: str, root: str) -> bool:
    """Whether a path is a root or inside it. Both are absolute and without `.` and `..`."""
    return path == root or path.startswith(root if root.endswith(os.sep) else root + os.sep)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((kind for is_kind, kind in kinds if is_kind(mode)), "something special")


def _raise_outside(path: str) -> NoReturn:
    raise CannotBeDone(
        f"the file {path!r} lies outside the directories that are open to events; {_SET_ROOTS}",
        reason="path_outside_roots",
    )


def _raise_for(error: OSError, path: str) -> NoReturn:
    if (shortage := exhausted(error)) is not None:
        raise shortage from error
    if error.errno in _MALFORMED:
        raise CannotBeDone(f"{path[:200]!r} is no usable path: {error.strerror}", reason="path_invalid") from error
    if error.errno in (errno.EACCES, errno.EPERM):
        raise TryLater(
            f"the file {path!r} may not be read by this service's user: {error.strerror}; grant it read access",
            reason="content_refused",
        ) from error
    # EIO, ESTALE, ENOTCONN, EHOSTDOWN and the like: this says more of the file server than of the file.
    raise SourceFailed(f"the file {path!r} cannot be read: {error.strerror}", reason="content_unreachable") from error

"""The bytes of one image, as a file descriptor that can be handed to a child.

A `Content` owns its descriptor: whoever opens one closes it. Bytes that come from a message or over the network live
in a memfd that is sealed once it is filled, so that a child that gets the descriptor can read it and change nothing.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from worker.images.format import HEAD_BYTES

CLOSED = -1
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_READ_STEP_BYTES = 1 << 24


@dataclass(slots=True)
class Content:
    """An image's bytes behind `fd`. Reading never moves the descriptor's offset, which children share.

    `origin` tells people where the bytes came from: `path photos/a.jpg`, `url https://dms.example/a.jpg`, `message
    body`. `head` is its beginning, enough to tell the image format: whoever opened it could wait for a disk.
    """

    fd: int
    size_bytes: int
    origin: str
    head: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, origin: str) -> Content:
        """A sealed copy of `data` in memory."""
        with MemoryFile() as memory:
            memory.write(data)
            return memory.seal(origin)

    def read(self) -> bytes:
        """The whole content. A file that has shrunk since it was opened gives what is left of it."""
        pieces = []
        at = 0
        while at < self.size_bytes:
            piece = os.pread(self.fd, min(_READ_STEP_BYTES, self.size_bytes - at), at)
            if not piece:
                break
            pieces.append(piece)
            at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give the descriptor back. Closing twice is harmless."""
        if self.fd != CLOSED:
            # Forgotten first: the number may belong to somebody else as soon as close() returns.
            fd, self.fd = self.fd, CLOSED
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryFile:
    """A file in memory that is written piece by piece, then sealed into a `Content`. Closed when it never is."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("autotag-content", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. `OSError` when the machine has no memory left for it."""
        left = memoryview(data)
        while left:
            written = os.write(self._fd, left)
            left = left[written:]
            self.size_bytes += written

    def seal(self, origin: str) -> Content:
        """Close the file to every change and hand it over."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        fd, self._fd = self._fd, CLOSED
        return Content(fd, self.size_bytes, origin, os.pread(fd, HEAD_BYTES, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd != CLOSED:
            os.close(self._fd)

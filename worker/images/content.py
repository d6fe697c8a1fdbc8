"""The bytes of one image, as a file descriptor that can be passed to a child.

A `Content` owns its descriptor: the caller that opens it closes it. Bytes from a message or the network are kept in a
memfd that is sealed once it is complete, so that a child with the descriptor can read it but not change it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from worker.images.format import HEAD_BYTES

CLOSED = -1
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_READ_STEP_BYTES = 1 << 24
_HASH_STEP_BYTES = 1 << 20
_HASHED_AT_ONCE_BYTES = 256 << 10  # 0.2 ms


@dataclass(slots=True)
class Content:
    """An image's bytes behind `fd`. Reading never moves the descriptor's offset, which children share.

    `origin` says for people where the bytes came from: `path photos/a.jpg`, `url https://dms.example/a.jpg`, `message
    body`. `head` is the beginning, enough to detect the image format; it is read when the content is opened, because
    only then may a call block on a disk.
    """

    fd: int
    size_bytes: int
    origin: str
    head: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, origin: str) -> Content:
        """A sealed copy of `data` in memory."""
        return cls.from_pieces([data], origin)

    @classmethod
    def from_pieces(cls, pieces: Iterable[bytes | memoryview], origin: str) -> Content:
        """A sealed copy in memory of pieces that follow each other."""
        with MemoryFile() as memory:
            for piece in pieces:
                memory.write(piece)
            return memory.seal(origin)

    def read(self) -> bytes:
        """The whole content. If the file has shrunk since it was opened, what is left of it."""
        chunks = []
        offset = 0
        while offset < self.size_bytes:
            chunk = os.pread(self.fd, min(_READ_STEP_BYTES, self.size_bytes - offset), offset)
            if not chunk:
                break
            chunks.append(chunk)
            offset += len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def sha256(self) -> str:
        """SHA-256 of the whole content. Takes as long as reading it does."""
        digest, position = hashlib.sha256(), 0
        while piece := os.pread(self.fd, _HASH_STEP_BYTES, position):
            digest.update(piece)
            position += len(piece)
        return digest.hexdigest()

    @property
    def is_hashed_at_once(self) -> bool:
        """Whether `sha256` takes less time than handing it to a thread: it is small, and in memory, not on a disk."""
        if self.size_bytes > _HASHED_AT_ONCE_BYTES:
            return False
        try:
            return fcntl.fcntl(self.fd, fcntl.F_GET_SEALS) != 0
        except OSError:  # only a file in memory can be sealed
            return False

    def duplicate(self) -> Content:
        """The same content behind a descriptor of its own, for a use that lasts longer. Raises OSError without one."""
        return replace(self, fd=fcntl.fcntl(self.fd, fcntl.F_DUPFD_CLOEXEC, 3))

    def close(self) -> None:
        """Close the descriptor. Closing twice is harmless."""
        if self.fd != CLOSED:
            # Cleared first: the descriptor's number may be in use again as soon as close() returns.
            fd, self.fd = self.fd, CLOSED
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryFile:
    """A file in memory, written in chunks, then sealed into a `Content`. An unsealed one is closed by its context."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("autotag-content", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. Raises OSError when the machine has no memory left."""
        remaining = memoryview(data)
        while remaining:
            written = os.write(self._fd, remaining)
            remaining = remaining[written:]
            self.size_bytes += written

    def seal(self, origin: str) -> Content:
        """Seal the file against every change and transfer its descriptor to a `Content`."""
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

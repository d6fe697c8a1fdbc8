"""The directories of a TIFF file, read within bounds: what each says about its picture, and where its bytes are.

Pillow reads the pixels. It reads the first directory alone, and one whose layout it does not know it reports as if it
were no TIFF at all; here every directory is found, those below SubIFDs too. TIFF 6.0, BigTIFF, TIFF/EP and DNG.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAXIMUM_DIRECTORIES: Final = 64
_MAXIMUM_ENTRIES: Final = 1000
_MAXIMUM_VALUES: Final = 1 << 16
"""Of one entry that are read. Only tables of strips are longer, and nothing here needs all of them."""
_MAXIMUM_TEXT: Final = 256

NEW_SUBFILE_TYPE: Final = 254
WIDTH: Final = 256
HEIGHT: Final = 257
BITS_PER_SAMPLE: Final = 258
COMPRESSION: Final = 259
PHOTOMETRIC: Final = 262
FILL_ORDER: Final = 266
MAKE: Final = 271
STRIP_OFFSETS: Final = 273
ORIENTATION: Final = 274
SAMPLES_PER_PIXEL: Final = 277
STRIP_BYTES: Final = 279
PLANAR: Final = 284
TILE_OFFSETS: Final = 324
TILE_BYTES: Final = 325
SUB_IFDS: Final = 330
EXTRA_SAMPLES: Final = 338
SAMPLE_FORMAT: Final = 339
JPEG_OFFSET: Final = 513
JPEG_BYTES: Final = 514
EXIF_IFD: Final = 34665
DNG_VERSION: Final = 50706

_REDUCED, _MASK = 1, 4
_TEXT, _UNDEFINED = 2, 7
_NUMBERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""The types of whole numbers, and their letters for `struct`."""
_BYTES: Final = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""The size of one value of the types of more than a byte."""

_HEADERS: Final = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
    b"IIRO": ("<", False),  # Olympus
    b"IIRS": ("<", False),
    b"MMOR": (">", False),
    b"IIU\0": ("<", False),  # Panasonic
}


class NotTiff(Exception):
    """The header or the first directory makes no sense; `truncated` where it lies beyond the end of the file."""

    def __init__(self, message: str, *, truncated: bool = False) -> None:
        super().__init__(message)
        self.truncated = truncated


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory: the offset of its first byte, and its entries, whose values are read when they are asked for."""

    data: bytes = field(repr=False)
    order: str
    offset: int
    entries: dict[int, tuple[int, int, int]]
    """A tag's type, number of values and offset of the first value."""

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The values of an entry that are whole numbers; none where it is missing or lies beyond the file's end."""
        kind, number, place = self.entries.get(tag, (0, 0, 0))
        code = _NUMBERS.get(kind)
        if code is None:
            return ()
        try:
            return struct.unpack_from(f"{self.order}{min(number, _MAXIMUM_VALUES)}{code}", self.data, place)
        except (struct.error, OverflowError):
            return ()

    def number(self, tag: int, default: int = 0) -> int:
        """The first value of an entry; `default` where it is missing or no whole number."""
        found = self.numbers(tag)
        return found[0] if found else default

    def raw(self, tag: int) -> bytes:
        """The bytes of an entry of text or of undefined content; empty where it is missing or something else."""
        kind, number, place = self.entries.get(tag, (0, 0, 0))
        return self.data[place : place + number] if kind in (_TEXT, _UNDEFINED) else b""

    def text(self, tag: int) -> str:
        """A text entry, without what follows its end."""
        return self.raw(tag)[:_MAXIMUM_TEXT].split(b"\0")[0].decode("latin-1").strip()

    def place(self, tag: int) -> int:
        """The offset of an entry's first value; 0 where it is missing."""
        return self.entries.get(tag, (0, 0, 0))[2]

    @property
    def is_reduced(self) -> bool:
        """It holds a smaller copy of another picture."""
        return bool(self.number(NEW_SUBFILE_TYPE) & _REDUCED)

    @property
    def is_mask(self) -> bool:
        """It holds another picture's transparency."""
        return bool(self.number(NEW_SUBFILE_TYPE) & _MASK)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as stored."""
        return self.number(WIDTH), self.number(HEIGHT)


class Tiff:
    """A TIFF file's directories: the chain that its header starts, then those below it; none of them twice.

    Raises `NotTiff`.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        header = _HEADERS.get(data[:4])
        if header is None:
            raise NotTiff("it does not begin like a TIFF")
        self.order, self._big = header
        self._seen: set[int] = set()
        self.chain = tuple(self._chain(self._first_offset()))
        if not self.chain:
            raise NotTiff("it has no directory")
        self.below = tuple(self._below(self.chain))

    @property
    def directories(self) -> tuple[Directory, ...]:
        """All of them, the chain first."""
        return self.chain + self.below

    def directory(self, offset: int) -> Directory | None:
        """The directory at `offset`, or None where there is none that makes sense."""
        try:
            return self._read(offset)[0]
        except (struct.error, OverflowError, NotTiff):
            return None

    def starting_with(self, directory: Directory) -> bytes:
        """The file, with `directory` as the first of its chain."""
        at, letter = self._pointer
        written = struct.pack(self.order + letter, directory.offset)
        return b"".join((self.data[:at], written, self.data[at + len(written) :]))

    @property
    def _pointer(self) -> tuple[int, str]:
        """Where the header has the offset of the first directory, and how."""
        return (8, "Q") if self._big else (4, "I")

    def _first_offset(self) -> int:
        at, letter = self._pointer
        try:
            return int(struct.unpack_from(self.order + letter, self.data, at)[0])
        except struct.error as error:
            raise NotTiff("it ends within its header", truncated=True) from error

    def _chain(self, offset: int) -> Iterator[Directory]:
        while offset and offset not in self._seen and len(self._seen) < MAXIMUM_DIRECTORIES:
            first = not self._seen
            self._seen.add(offset)
            try:
                directory, offset = self._read(offset)
            except (struct.error, OverflowError, NotTiff) as error:
                if first:
                    raise NotTiff("its first directory is not in the file", truncated=True) from error
                return
            yield directory

    def _below(self, above: tuple[Directory, ...]) -> Iterator[Directory]:
        for directory in above:
            for offset in directory.numbers(SUB_IFDS):
                found = tuple(self._chain(offset))
                yield from found
                yield from self._below(found)

    def _read(self, offset: int) -> tuple[Directory, int]:
        """The directory at `offset`, and the offset of the next one."""
        count_letter, entry_bytes, letter = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        count = struct.unpack_from(self.order + count_letter, self.data, offset)[0]
        start = offset + struct.calcsize(self.order + count_letter)
        end = start + count * entry_bytes
        if count == 0 or count > _MAXIMUM_ENTRIES or end > len(self.data):
            raise NotTiff("a directory is not in the file")
        entries = {}
        for place in range(start, end, entry_bytes):
            tag, kind, number = struct.unpack_from(self.order + "HH" + letter, self.data, place)
            cell = place + entry_bytes - struct.calcsize(self.order + letter)
            if number * _BYTES.get(kind, 1) > struct.calcsize(self.order + letter):
                cell = struct.unpack_from(self.order + letter, self.data, cell)[0]
            entries[tag] = (kind, number, cell)
        try:
            following = int(struct.unpack_from(self.order + letter, self.data, end)[0])
        except struct.error:
            following = 0
        return Directory(self.data, self.order, offset, entries), following


def is_cut(data: bytes) -> bool:
    """Whether a directory has strips or tiles that lie beyond the end of the file."""
    try:
        found = Tiff(data)
    except NotTiff as error:
        return error.truncated
    return any(
        offset + length > len(data)
        for directory in found.chain
        for offsets, lengths in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES))
        for offset, length in zip(directory.numbers(offsets), directory.numbers(lengths), strict=False)
    )

"""Raw photographs: which file is one, and the largest picture in it that its camera made.

The sensor's data is not developed: that takes a library with a long list of cameras. Nearly every camera stores a JPEG
beside it, of a size that is enough to see what the photograph shows, and that is taken. A thumbnail is not.

Containers: TIFF directories (DNG, NEF, CR2, ARW, PEF, SRW, ORF, RW2, …), Fujifilm's header, and the boxes of CR3, as
described at https://exiftool.org and https://github.com/lclevy/canon_cr3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from worker.children.formats import boxes, jpeg, tiff
from worker.children.formats.tiff import Directory, NotTiff, Tiff

MINIMUM_SIDE: Final = 256
"""A preview whose shorter side is below this many pixels is a thumbnail: less than what the models look at."""

_SENSOR_DATA: Final = frozenset({32803, 34892})
"""Photometric interpretations of a mosaic of colours, and of one that is sorted but not developed."""
_SENSOR_COMPRESSIONS: Final = frozenset({32767, 32769, 32770, 32867, 34713, 34892, 65000, 65535})
"""Compressions that cameras have for their sensors' data."""
_READ_PHOTOMETRICS: Final = frozenset({1, 2, 6})
_READ_COMPRESSIONS: Final = frozenset({1, 5, 7, 8})

_KINDS: Final = {
    "NIKON": "NEF",
    "SONY": "ARW",
    "CANON": "CR2",
    "PENTAX": "PEF",
    "RICOH": "PEF",
    "SAMSUNG": "SRW",
    "HASSELBLAD": "3FR",
    "PHASE ONE": "IIQ",
    "LEAF": "MOS",
    "EPSON": "ERF",
    "KODAK": "DCR",
    "EASTMAN KODAK": "DCR",
    "MAMIYA": "MEF",
    "OLYMPUS": "ORF",
    "OM DIGITAL": "ORF",
    "PANASONIC": "RW2",
    "LEICA": "RWL",
}
"""The maker, as a file's directory begins to name it, and what its raw photographs are called."""

_PANASONIC_JPEG = 0x2E
_MAKER_NOTE = 37500
_OLYMPUS_CAMERA, _OLYMPUS_PREVIEW_START, _OLYMPUS_PREVIEW_BYTES = 0x2020, 0x0101, 0x0102
_OLYMPUS_HEADS: Final = {b"OLYMPUS\0": 12, b"OM SYSTEM\0": 16}
"""How a note of theirs begins, and where in it its directory does."""

_FUJIFILM_JPEG = 84

_CR3_PARENTS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_CR3_UUIDS: Final = {
    bytes.fromhex("85c0b687820f11e08111f4ce462b6a48"): 16,
    bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16"): 24,
}
"""Canon's own boxes that hold boxes, by the number they begin with, and how many bytes come before those boxes."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A JPEG within a file, `start` to `end`, or the picture of a directory. `orientation`: as the raw file says."""

    size: tuple[int, int]
    orientation: int
    start: int = 0
    end: int = 0
    directory: Directory | None = None


def tiff_kind(data: bytes, found: Tiff) -> str | None:
    """What the raw photograph with these directories is called (`NEF`); None for a plain TIFF."""
    first = found.chain[0]
    maker = first.text(tiff.MAKE).upper()
    is_raw = (
        data[8:11] == b"CR\x02"
        or tiff.DNG_VERSION in first.entries
        or any(
            directory.number(tiff.PHOTOMETRIC) in _SENSOR_DATA
            or directory.number(tiff.COMPRESSION) in _SENSOR_COMPRESSIONS
            for directory in found.directories
        )
        # A thumbnail alone, of a camera: the photograph is where only its maker's programs find it.
        or (bool(maker) and all(directory.is_reduced or directory.is_mask for directory in found.directories))
    )
    if not is_raw:
        return None
    if tiff.DNG_VERSION in first.entries:
        return "DNG"
    return next((kind for name, kind in _KINDS.items() if maker.startswith(name)), "RAW")


def largest_in_tiff(data: bytes, found: Tiff) -> Preview | None:
    """The largest preview of sensible size in a raw photograph made of TIFF directories."""
    turn = found.chain[0].number(tiff.ORIENTATION, 1)
    return _largest([*_jpegs(data, _in_directories(found), turn), *_rendered(found, turn)])


def largest_in_raf(data: bytes) -> Preview | None:
    """The same of a Fujifilm file."""
    if len(data) < _FUJIFILM_JPEG + 8:
        return None
    start, length = struct.unpack_from(">II", data, _FUJIFILM_JPEG)
    return _largest(_jpegs(data, [(start, length)], 1))


def largest_in_cr3(data: bytes) -> Preview | None:
    """The same of a Canon file of 2018 and later."""
    places: list[tuple[int, int]] = []
    turn, sample_bytes = 1, 0
    for name, start, end in boxes.walk(data, _CR3_PARENTS, _CR3_UUIDS):
        match name:
            case b"PRVW":
                places.append((start + 16, end - start - 16))
            case b"CMT1":
                turn = _orientation_in(data[start:end])
            case b"stsz" if end - start >= 12:
                sample_bytes = struct.unpack_from(">I", data, start + 4)[0] or _first_size(data, start, end)
            case b"co64" if end - start >= 16:
                places.append((struct.unpack_from(">Q", data, start + 8)[0], sample_bytes))
            case b"stco" if end - start >= 12:
                places.append((struct.unpack_from(">I", data, start + 8)[0], sample_bytes))
    return _largest(_jpegs(data, places, turn))


def _largest(previews: list[Preview]) -> Preview | None:
    sensible = [preview for preview in previews if min(preview.size) >= MINIMUM_SIDE]
    return max(sensible, key=lambda preview: preview.size[0] * preview.size[1], default=None)


def _jpegs(data: bytes, places: list[tuple[int, int]], orientation: int) -> list[Preview]:
    """Those of the places, offset and length, at which there is a JPEG that can be decoded."""
    found = []
    for start, length in places:
        frame = jpeg.frame(data, start) if 0 < start < len(data) and length > 0 else None
        if frame is not None and frame.kind_not_read is None:
            found.append(Preview((frame.width, frame.height), orientation, start, min(start + length, len(data))))
    return found


def _in_directories(found: Tiff) -> list[tuple[int, int]]:
    """Where directories say that JPEGs are."""
    places = []
    for directory in found.directories:
        if directory.number(tiff.PHOTOMETRIC, 6) not in _READ_PHOTOMETRICS:
            continue
        places.append((directory.number(tiff.JPEG_OFFSET), directory.number(tiff.JPEG_BYTES)))
        strips = directory.numbers(tiff.STRIP_OFFSETS)
        if len(strips) == 1:
            places.append((strips[0], directory.number(tiff.STRIP_BYTES)))
    first = found.chain[0]
    places.append((first.place(_PANASONIC_JPEG), len(first.raw(_PANASONIC_JPEG))))
    exif = found.directory(first.number(tiff.EXIF_IFD))
    if exif is not None:
        places.extend(_in_olympus_note(found, exif.place(_MAKER_NOTE)))
    return places


def _in_olympus_note(found: Tiff, start: int) -> Iterator[tuple[int, int]]:
    """Offsets in such a note count from its beginning."""
    head = next((length for head, length in _OLYMPUS_HEADS.items() if found.data.startswith(head, start)), None)
    if head is None or not start:
        return
    note = found.directory(start + head)
    if note is None:
        return
    camera = found.directory(start + (note.number(_OLYMPUS_CAMERA) or note.place(_OLYMPUS_CAMERA)))
    if camera is not None:
        yield start + camera.number(_OLYMPUS_PREVIEW_START), camera.number(_OLYMPUS_PREVIEW_BYTES)


def _rendered(found: Tiff, orientation: int) -> list[Preview]:
    """Directories that hold a picture in the ordinary way, as TIFF/EP has it."""
    return [
        Preview(directory.size, directory.number(tiff.ORIENTATION, orientation), directory=directory)
        for directory in found.directories
        if directory.number(tiff.PHOTOMETRIC, -1) in _READ_PHOTOMETRICS
        and directory.number(tiff.COMPRESSION, 1) in _READ_COMPRESSIONS
        and set(directory.numbers(tiff.BITS_PER_SAMPLE)) == {8}
        and not directory.is_mask
        and directory.number(tiff.STRIP_OFFSETS) + directory.number(tiff.TILE_OFFSETS) > 0
    ]


def _orientation_in(data: bytes) -> int:
    try:
        return Tiff(data).chain[0].number(tiff.ORIENTATION, 1)
    except NotTiff:
        return 1


def _first_size(data: bytes, start: int, end: int) -> int:
    return int(struct.unpack_from(">I", data, start + 12)[0]) if end - start >= 16 else 0

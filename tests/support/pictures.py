"""Image files written by hand: TIFF, PNG and BMP in layouts that Pillow does not write, and containers of raw files.

Samples are given as bytes in the file's own order and depth; `samples` makes them of an ordinary picture.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

Values = Mapping[int, tuple[int, Sequence[int] | bytes]]
"""TIFF tags, each with its type and its values."""

FROM_UPRIGHT = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera stores an upright scene for each orientation; None: as it is."""


def written(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """What Pillow writes."""
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], depth: int, colour_type: int, data: bytes, before: bytes = b"") -> bytes:
    """A PNG of unfiltered rows; `before`: chunks that precede the pixels."""
    width, height = size
    row = len(data) // height
    rows = b"".join(b"\0" + data[start : start + row] for start in range(0, len(data), row))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            before,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def samples(image: Image.Image, bits: int, order: str, *, kind: str = "unsigned", inverted: bool = False) -> bytes:
    """All samples of a picture of 8 bits, row by row, at another depth: 1, 2, 4, 8, 12, 16, 32 or 64 bits.

    `kind`: unsigned, signed (without negative values) or float (0 to 1). `order`: `<` or `>`.
    """
    values = [255 - value if inverted else value for value in image.tobytes()]
    if kind == "float":
        letter = {16: "e", 32: "f", 64: "d"}[bits]
        return struct.pack(f"{order}{len(values)}{letter}", *(value / 255 for value in values))
    brightest = (1 << bits - (kind == "signed")) - 1
    scaled = [value * brightest // 255 for value in values]
    if bits >= 8 and bits != 12:
        return struct.pack(f"{order}{len(values)}{ {8: 'B', 16: 'H', 32: 'I'}[bits] }", *scaled)
    width = len(values) // image.height
    return b"".join(_packed(scaled[start : start + width], bits) for start in range(0, len(values), width))


def _packed(row: list[int], bits: int) -> bytes:
    """Samples of less than a byte, or of a byte and a half, the first one's highest bit first."""
    number = 0
    for value in row:
        number = number << bits | value
    length = (len(row) * bits + 7) // 8
    return (number << length * 8 - len(row) * bits).to_bytes(length, "big")


def ifd(order: str, tags: Values, start: int, following: int = 0) -> bytes:
    """A TIFF directory with its values, for the offset `start`. `following`: the offset of the next directory."""
    base = start + 2 + 12 * len(tags) + 4
    entries, values_elsewhere = bytearray(), bytearray()
    for tag in sorted(tags):
        kind, values = tags[tag]
        letter = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B"}[kind]
        raw = struct.pack(f"{order}{len(values)}{letter}", *values)
        cell = raw.ljust(4, b"\0")
        if len(raw) > 4:
            cell = struct.pack(order + "I", base + len(values_elsewhere))
            values_elsewhere += raw + b"\0" * (len(raw) % 2)
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + cell
    head = struct.pack(order + "H", len(tags))
    return bytes(head + entries + struct.pack(order + "I", following) + values_elsewhere)


def tiff(
    order: str,
    size: tuple[int, int],
    bits: Sequence[int],
    photometric: int,
    data: bytes,
    more: Values | None = None,
    *,
    planes: int = 1,
) -> bytes:
    """A TIFF of one strip, or of one for each plane."""
    plane = len(data) // planes
    tags: dict[int, tuple[int, Sequence[int] | bytes]] = {
        256: (4, [size[0]]),
        257: (4, [size[1]]),
        258: (3, bits),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [0] * planes),
        277: (3, [len(bits)]),
        278: (4, [size[1]]),
        279: (4, [plane] * planes),
        284: (3, [2 if planes > 1 else 1]),
    } | dict(more or {})
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    pixels = len(header) + len(ifd(order, tags, len(header)))
    tags[273] = (4, [pixels + plane * number for number in range(planes)])
    return header + ifd(order, tags, len(header)) + data


def bmp(size: tuple[int, int], bits: int, data: bytes, masks: Sequence[int] = (), header_bytes: int = 40) -> bytes:
    """A BMP of rows that are padded already, the lowest first. `masks`: red, green, blue and perhaps alpha."""
    header = struct.pack("<IiiHHIIiiII", header_bytes, *size, 1, bits, 3 if masks else 0, len(data), 2835, 2835, 0, 0)
    header = (header + struct.pack(f"<{len(masks)}I", *masks)).ljust(header_bytes, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(data), 0, 0, 14 + len(header)) + header + data

"""The image that `autotag check` sends to a service: a small grey square."""

from __future__ import annotations

import struct
import zlib

GREY_SIDE = 64
"""Width and height in pixels: above the minimum of every service (50 pixels)."""


def grey_png() -> bytes:
    """A grey square as a PNG, encoded here because the parent process imports no image library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", GREY_SIDE, GREY_SIDE, 8, 0, 0, 0, 0)  # 8 bits a sample, greyscale
    rows = (b"\x00" + b"\x80" * GREY_SIDE) * GREY_SIDE  # each row begins with its filter: none
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

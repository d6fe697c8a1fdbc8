"""What a WebP's header says; and WebPs with a wrong outer size, or without their last byte of filling, mended."""

from __future__ import annotations

from dataclasses import dataclass

_RIFF_HEAD_BYTES = 8
_EXTENDED, _LOSSLESS, _LOSSY = b"VP8X", b"VP8L", b"VP8 "
_HAS_ALPHA = 0x10


@dataclass(frozen=True, slots=True)
class Canvas:
    """What the header says of the picture: width and height, and whether there may be transparency."""

    size: tuple[int, int]
    transparent: bool


def canvas(data: bytes) -> Canvas | None:
    """The canvas of the WebP; None if there is no header.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    name, body = data[12:16], data[20:30]
    if len(body) < 5:
        return None
    if name == _LOSSLESS:
        bits = int.from_bytes(body[1:5], "little")
        return Canvas(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), bool(bits >> 28 & 1))
    if len(body) < 10:
        return None
    if name == _EXTENDED:
        size = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        return Canvas(size, bool(body[0] & _HAS_ALPHA))
    if name == _LOSSY:
        size = int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
        return Canvas(size, False)
    return None


def mended(data: bytes) -> bytes:
    """The file with the size that it has. One of which pixels are missing stays so: their chunk has its own size."""
    filled = data + b"\0" * (len(data) % 2)
    return data[:4] + (len(filled) - _RIFF_HEAD_BYTES).to_bytes(4, "little") + filled[_RIFF_HEAD_BYTES:]

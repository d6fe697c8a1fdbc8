"""WebPs whose outer size is wrong, or whose last byte of filling is missing: the picture in them is whole."""

from __future__ import annotations

_RIFF_HEAD_BYTES = 8


def mended(data: bytes) -> bytes:
    """The file with the size that it has. One of which pixels are missing stays so: their chunk has its own size."""
    filled = data + b"\0" * (len(data) % 2)
    return data[:4] + (len(filled) - _RIFF_HEAD_BYTES).to_bytes(4, "little") + filled[_RIFF_HEAD_BYTES:]

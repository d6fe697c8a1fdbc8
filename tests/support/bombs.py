"""Real image files that need more processor time or memory than a decoder is allowed."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA


def jpeg_of_many_scans(side: int = 4000, scans: int = 1000, shade: int = 128) -> bytes:
    """A progressive JPEG whose last refinement scan is repeated. Another `shade` makes another file.

    It is small, valid, and below every limit on pixels, yet each scan makes the decoder process the whole picture:
    110 kilobytes of 4000 x 4000 pixels take ten seconds of processor time.
    """
    written = io.BytesIO()
    Image.new("L", (side, side), shade).save(written, "JPEG", progressive=True, quality=50)
    segments = list(_segments(written.getvalue()))
    return _START + b"".join(segments) + segments[-1] * scans + _END


def png_of_many_pixels(side: int = 7000) -> bytes:
    """A PNG of one colour: few bytes, and four bytes of memory for each pixel."""
    written = io.BytesIO()
    Image.new("RGB", (side, side), "navy").save(written, "PNG")
    return written.getvalue()


def _segments(jpeg: bytes) -> Iterator[bytes]:
    position = len(_START)
    while jpeg[position : position + 2] != _END:
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        if jpeg[position + 1] == _SCAN:
            # Entropy-coded data follows, in which 0xFF may be followed by a zero byte or a restart marker.
            while not (jpeg[end] == 0xFF and jpeg[end + 1] != 0 and not 0xD0 <= jpeg[end + 1] <= 0xD7):
                end += 1
        yield jpeg[position:end]
        position = end

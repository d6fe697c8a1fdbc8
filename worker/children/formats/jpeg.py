"""What a JPEG's markers say: its kind and size, and whether one without its last marker has all its pixels.

ITU-T T.81. Cameras that lost power, and programs that count bytes wrongly, leave out the end marker; every browser
shows such a picture. Pillow refuses it like one of which half is missing.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from PIL import Image

END: Final = b"\xff\xd9"
_START: Final = b"\xff\xd8"
_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""Its last byte 255, of however many: with all of them, a long row of them would take quadratic time."""
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_SCAN, _END = 0xDA, 0xD9
_BASELINE, _EXTENDED, _PROGRESSIVE, _LOSSLESS = 0xC0, 0xC1, 0xC2, 0xC3
_READABLE: Final = frozenset({_BASELINE, _EXTENDED, _PROGRESSIVE, 0xC9, 0xCA})
"""0xC9 and 0xCA are arithmetic coding."""
_OF_MANY_SCANS: Final = frozenset({_PROGRESSIVE, 0xCA})
_MAXIMUM_SEGMENTS: Final = 10_000

_ZERO_FILL_BYTES: Final = 4
"""So many zeros at the end are filling, and no part of a picture."""
_PADDING: Final = bytes(random.Random(1).choices(range(1, 255), k=4096))  # noqa: S311 - any bytes do, the same each time


@dataclass(frozen=True, slots=True)
class Frame:
    """What a JPEG's frame header says. `marker` is the coding process."""

    marker: int
    precision: int
    width: int
    height: int
    components: int

    @property
    def kind_not_read(self) -> str | None:
        """What people call a kind of JPEG that Pillow cannot decode; None for one that it can."""
        if self.marker == 0xF7:
            return "JPEG-LS"
        if self.marker not in _READABLE:
            return "lossless JPEG" if self.marker & 3 == _LOSSLESS & 3 else "hierarchical JPEG"
        return None if self.precision == 8 else f"JPEG with {self.precision} bits a channel"


def frame(data: bytes, start: int = 0) -> Frame | None:
    """The frame header of the JPEG that begins at `start`; None if none begins there, or it has none."""
    if data[start : start + 2] != _START:
        return None
    for marker, at, length in _segments(data, start + 2):
        if marker in _FRAMES and (found := _frame(data, marker, at, length)) is not None:
            return found
        if marker == _SCAN:
            return None
    return None


def _frame(data: bytes, marker: int, at: int, length: int) -> Frame | None:
    if length < 6:
        return None
    height, width = int.from_bytes(data[at + 1 : at + 3], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
    return Frame(marker, data[at], width, height, data[at + 5])


@dataclass(frozen=True, slots=True)
class Head:
    """What comes before the pixels: the frame, if there is one, how many segments, and bytes that fill up space.

    `scans`: how many there are at most, if every picture in the file is counted; 1 where the first has all there is.
    """

    frame: Frame | None
    parts: int
    filling_bytes: int
    scans: int = 1


def head(data: bytes, maximum_parts: int = _MAXIMUM_SEGMENTS) -> Head:
    """The head of the JPEG; no more than `maximum_parts` segments are counted."""
    found, parts, filling, end = None, 0, 0, len(_START)
    for marker, at, length in _segments(data, end, maximum_parts):
        parts += 1
        filling += at - end - 4
        end = at + length
        if marker in _FRAMES:
            found = found or _frame(data, marker, at, length)
        elif marker == _SCAN:
            several = found is not None and (found.marker in _OF_MANY_SCANS or data[at] != found.components)
            return Head(found, parts, filling, data.count(b"\xff\xda") if several else 1)
    # It may go on with more filling than the search for the next marker has to look at.
    rest = len(data) - end
    return Head(found, parts, filling + rest - len(data[end:].lstrip(b"\xff")))


def with_its_end(data: bytes) -> Image.Image | None:
    """The JPEG, opened, with the end marker that it lacks; None unless all its pixels are there.

    What is missing does not show: the decoder takes whatever follows for pixels, or makes up grey ones. So the picture
    is decoded with two different endings. If it is the same, the endings were not needed.
    """
    for body in _bodies(data):
        if _is_whole(body):
            return Image.open(io.BytesIO(body + END), formats=["JPEG"])
    return None


def _bodies(data: bytes) -> Iterator[bytes]:
    """The file without what fills it up: zeros, or the halves of markers. A zero may be the last byte of the pixels."""
    body = data.rstrip(b"\0")
    zeros = len(data) - len(body)
    if zeros < _ZERO_FILL_BYTES:
        body, zeros = data, 0
    pixels = body.rstrip(b"\xff")
    if zeros and pixels != body:
        yield pixels + b"\xff\0"  # the byte 255, as it is written among pixels
        return
    yield pixels
    if zeros:
        yield pixels + b"\0"


def _is_whole(body: bytes) -> bool:
    try:
        return _has_all_scans(body) and _small(body + END) == _small(body + _PADDING + END)
    except OSError:
        return False


def _small(data: bytes) -> bytes:
    """The pixels at an eighth of the size; at half for a progressive one, whose last scans an eighth would not show."""
    found = frame(data)
    reduction = 2 if found is not None and found.marker == _PROGRESSIVE else 8
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft(None, (max(1, image.width // reduction), max(1, image.height // reduction)))
        return image.tobytes()


def _has_all_scans(data: bytes) -> bool:
    """Whether every component, and of a progressive JPEG every coefficient to its last bit, has a scan."""
    found = frame(data)
    if found is None:
        return False
    wanted = {(component, 0) for component in range(found.components)}
    if found.marker == _PROGRESSIVE:
        wanted = {(component, place) for component in range(found.components) for place in range(64)}
    numbers: list[int] = []
    for marker, at, length in _segments(data, 2):
        if marker in _FRAMES:
            numbers = [data[at + 6 + 3 * place] for place in range(found.components) if 6 + 3 * place < length]
        elif marker == _SCAN and length >= 4 + 2 * (count := data[at]):
            first, last, approximation = data[at + 1 + 2 * count : at + 4 + 2 * count]
            if found.marker == _PROGRESSIVE and approximation & 0xF:
                continue  # bits are still missing
            for component in (numbers.index(each) for each in data[at + 1 : at + 1 + 2 * count : 2] if each in numbers):
                wanted -= {(component, place) for place in range(first, max(first, last) + 1)}
    return not wanted


def _segments(data: bytes, start: int, maximum: int = _MAXIMUM_SEGMENTS) -> Iterator[tuple[int, int, int]]:
    """Marker, offset and length of the content of each segment, until the end marker."""
    position = start
    for _ in range(maximum):
        found = _MARKER.search(data, position)
        if found is None or found[1][0] == _END:
            return
        length = int.from_bytes(data[found.end() : found.end() + 2], "big") - 2
        position = found.end() + 2 + max(0, length)
        if length < 0 or position > len(data):
            return
        yield found[1][0], found.end() + 2, length

"""What decoding a file will take, foreseen from its structure: memory, and whether it takes long.

Both are for deciding where and when an image is decoded, not whether: an estimate that is too low is corrected by the
limit that the process is under, and one that is too high costs a wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from worker.children.formats import jpeg, png, webp
from worker.images.requests import JpegLimits

_MEBIBYTE = 1 << 20
_SLACK_BYTES = 16 * _MEBIBYTE
"""The model's input, tables and buffers of the libraries."""

_BYTES_PER_PIXEL = {"WEBP": 17.0, "AVIF": 9.0, "HEIF": 9.0, "TIFF": 8.0}
_OF_ONE_CHANNEL, _OF_OTHERS = 2.0, 5.5
_WITH_TRANSPARENCY, _DEEP_WITH_TRANSPARENT_COLOUR = 13.0, 21.0
_OF_ALPHA = {"WEBP": 4.0, "AVIF": 9.0, "HEIF": 9.0}
"""Peak address space for each pixel of the file, measured with pictures of 12 and 49 megapixels in each format (Pillow
12, libwebp 1.6, libavif 1.3, libheif 1.20), rounded up. Pillow keeps four bytes a pixel; WebP's decoder has the whole
canvas three times; to shrink transparent pixels Pillow makes two more copies."""

_OF_A_DRAFT = 0.5
_OF_COEFFICIENTS = {"L": 2.0, "RGB": 6.0, "CMYK": 8.0}
"""A JPEG is decoded at a fraction of its size; one of several scans is kept whole, two bytes for each coefficient."""

_OF_A_SHRUNK_PIXEL = 16.0
"""Of the smaller JPEG that is made for a cloud service, its copies while it is made included."""

_S_PER_SCANNED_PIXEL = 0.7e-9
"""Processor time of a scan that changes nothing, for each pixel of the picture: measured at 0.62 to 0.72 ns."""

_S_PER_RLE_BYTE = 0.22e-6
"""Of a BMP with run lengths, which Pillow decodes in Python: measured at 0.14 to 0.22 µs."""

_MANY_PARTS = 10_000
"""Segments, chunks or blocks before the pixels. Each takes about a microsecond, and some hundred bytes. Cameras and
programs write a few dozens."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What one image may use: bytes beyond what the process has already, and seconds of processor time.

    `may_have_more`: memory. `quick_s`: an image that takes longer than that is to be done elsewhere; None: this is
    where.
    """

    memory_bytes: int
    may_have_more: bool
    quick_s: float | None


class MoreWanted(Exception):
    """The image is not decoded, because it takes more than its grant: so much memory, or much time."""

    def __init__(self, memory_bytes: int, *, slow: bool) -> None:
        super().__init__(f"about {memory_bytes >> 20} MiB" + (", and much time" if slow else ""))
        self.memory_bytes = memory_bytes
        self.slow = slow


class Demand:
    """The demand of one image, compared with its grant as more of it becomes known."""

    def __init__(self, grant: Granted, limits: JpegLimits | None = None) -> None:
        """`limits`: of the JPEG that is to be made of it; None: a model's small input."""
        self._grant = grant
        self._limits = limits
        self._file_bytes = 0
        self._scans = 1
        self.memory_bytes = 0
        """Of what is known so far."""

    def check_file(self, media_type: str | None, data: bytes) -> None:
        """By the structure of a file that has not been opened. Raises `MoreWanted`."""
        self._file_bytes = len(data)
        self.memory_bytes = self._file_bytes + _SLACK_BYTES
        if media_type == "image/webp" and (canvas := webp.canvas(data)) is not None:
            self._add(canvas.size[0] * canvas.size[1], "WEBP", 3, transparent=canvas.transparent)
        head = jpeg.head(data, _MANY_PARTS) if media_type == "image/jpeg" else None
        self._scans = head.scans if head is not None else 1
        if self._grant.quick_s is not None and _seconds(media_type, data, head) > self._grant.quick_s:
            raise MoreWanted(self.memory_bytes, slow=True)
        self._compare()

    def check_picture(self, image: Image.Image, name: str, data: bytes) -> None:
        """By the header of a picture that has been opened, and not loaded. `name`: its format. Raises `MoreWanted`."""
        pixels = image.width * image.height
        if name == "WEBP":
            return  # it was opened with all the memory that it takes
        self.memory_bytes = self._file_bytes + _SLACK_BYTES
        if name == "JPEG":
            kept = _OF_COEFFICIENTS.get(image.mode, 8.0) if self._scans > 1 else 0.0
            drafted = 1.0 if self._limits is None else min(1.0, 4 * self._area(pixels) / max(1, pixels))
            self.memory_bytes += int(pixels * (kept + (_OF_A_DRAFT if self._limits is None else 4.0 * drafted)))
            self._add_shrunk(pixels)
        else:
            deep = name == "PNG" and png.has_deep_transparent_colour(data)
            self._add(pixels, name, _channels(image), transparent=image.has_transparency_data, deep=deep)
        self._compare()

    @property
    def takes_nearly_all(self) -> bool:
        """Whether the image takes most of what it is granted."""
        return self.memory_bytes > self._grant.memory_bytes * 3 // 4

    def after_failure(self, *, of_memory: bool) -> None:
        """Raise `MoreWanted` if what failed may have failed for want of memory, and may have more."""
        if self._grant.may_have_more and (of_memory or self.memory_bytes > self._grant.memory_bytes // 2):
            raise MoreWanted(max(self.memory_bytes, 2 * self._grant.memory_bytes), slow=False)

    def _add(self, pixels: int, name: str, channels: int, *, transparent: bool, deep: bool = False) -> None:
        each = _BYTES_PER_PIXEL.get(name, _OF_ONE_CHANNEL if channels == 1 else _OF_OTHERS)
        if name in _OF_ALPHA:
            self.memory_bytes += 2 * self._file_bytes  # copies of what is not decoded piece by piece
            each += _OF_ALPHA[name] if transparent else 0.0
        elif transparent:
            each = _DEEP_WITH_TRANSPARENT_COLOUR if deep else max(each, _WITH_TRANSPARENCY)
        self.memory_bytes += int(pixels * each)
        self._add_shrunk(pixels)

    def _add_shrunk(self, pixels: int) -> None:
        if self._limits is not None:
            self.memory_bytes += int(_OF_A_SHRUNK_PIXEL * self._area(pixels))

    def _area(self, pixels: int) -> int:
        """Pixels of the JPEG that is made."""
        assert self._limits is not None  # noqa: S101 - asked only where there is one
        return min(pixels, self._limits.maximum_width * self._limits.maximum_height)

    def _compare(self) -> None:
        if self._grant.may_have_more and self.memory_bytes > self._grant.memory_bytes:
            raise MoreWanted(self.memory_bytes, slow=False)


def seconds(media_type: str | None, data: bytes) -> float:
    """About how long a structure that is rare takes on its own; 0 for those of ordinary files, whatever they take."""
    return _seconds(media_type, data, jpeg.head(data, _MANY_PARTS) if media_type == "image/jpeg" else None)


def _seconds(media_type: str | None, data: bytes, head: jpeg.Head | None) -> float:
    if head is not None:
        return _of_jpeg(head)
    match media_type:
        case "image/png":
            return _of_parts(png.chunks(data, _MANY_PARTS))
        case "image/gif":
            return _of_parts(_gif_blocks(data))
        case "image/bmp" if data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
            return len(data) * _S_PER_RLE_BYTE
    return 0.0


def _of_jpeg(head: jpeg.Head) -> float:
    if head.parts >= _MANY_PARTS or head.filling_bytes > _MEBIBYTE:
        return float("inf")
    if head.frame is None or head.scans == 1:
        return 0.0
    return head.scans * _S_PER_SCANNED_PIXEL * head.frame.width * head.frame.height


def _of_parts(number: int) -> float:
    return float("inf") if number >= _MANY_PARTS else 0.0


def _channels(image: Image.Image) -> int:
    """Of what it becomes: a palette's colours have three."""
    return 1 if image.mode in ("1", "L") else 3


def _gif_blocks(data: bytes) -> int:
    """How many extensions and parts of them come before the first picture; no more than so many are counted."""
    if len(data) < 13:
        return 0
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    number = 0
    while number < _MANY_PARTS and data[position : position + 1] == b"!":
        position += 2
        while number < _MANY_PARTS and position < len(data) and (length := data[position]):
            position += length + 1
            number += 1
        position += 1
        number += 1
    return number

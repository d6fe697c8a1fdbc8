"""From untrusted bytes to an opened Pillow image, or to a named reason why not.

The format is told by the content, never by a name, and only allowed formats' parsers are ever tried. The header is
checked before a single pixel is decoded. Only the first frame is looked at.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from worker.children.magic import ALLOWED, look
from worker.errors import CannotBeDone

_PLUGINS = (
    BmpImagePlugin, GifImagePlugin, IcoImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin,
    WebPImagePlugin,
)  # fmt: skip
"""Imported for the formats they register; `Image.open` would import every plugin there is only when it finds none."""

_UPRIGHT = 1
_SWAPPED = range(5, 9)
"""EXIF orientations that exchange width and height."""

_BUFFER_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Facts:
    """What an image is: its format, its size as it should be shown, and the digest of its bytes."""

    format: str
    width: int
    height: int
    sha256: str


class _Source(io.RawIOBase):
    """A file read by position. Another process may be reading through the same open file, and share its offset."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0
        self.size_bytes = os.fstat(fd).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # the buffers that io makes
        data = os.pread(self._fd, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position


def prepare(maximum_pixels: int) -> None:
    """Set Pillow's own limits for the whole process."""
    Image.MAX_IMAGE_PIXELS = maximum_pixels
    warnings.simplefilter("ignore")  # complaints about odd metadata are of no use to anybody
    warnings.simplefilter("error", Image.DecompressionBombWarning)


@contextmanager
def opened(fd: int, *, maximum_pixels: int, maximum_bytes: int) -> Iterator[tuple[Image.Image, Facts]]:
    """The image in `fd`, its header read and checked, and its facts.

    Whatever goes wrong in the `with` block, too, becomes `CannotBeDone`: Pillow raises nearly every type there is on
    malformed input, and none of it may take the decoder down.
    """
    head = b""
    try:
        raw = _Source(fd)
        head = os.pread(fd, 4096, 0)
        _check_bytes(raw.size_bytes, maximum_bytes, head)
        sha256 = hashlib.file_digest(io.BufferedReader(_Source(fd), _BUFFER_BYTES), "sha256").hexdigest()
        with Image.open(io.BufferedReader(raw, _BUFFER_BYTES), formats=ALLOWED) as image:
            _check_pixels(image.size, maximum_pixels)
            yield image, _facts(image, sha256)
    except CannotBeDone:
        raise
    except Exception as error:
        raise _refusal(error, head) from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. Damaged metadata is no reason to refuse a picture: it counts as upright."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except Exception:  # noqa: BLE001 - a metadata parser fed with anything raises anything
        return _UPRIGHT
    return found if found in range(1, 9) else _UPRIGHT


def _facts(image: Image.Image, sha256: str) -> Facts:
    width, height = image.size
    # Pillow turns a TIFF upright by itself while loading, and gives its size accordingly from the start.
    if image.format != "TIFF" and orientation(image) in _SWAPPED:
        width, height = height, width
    # A multi-picture JPEG is to everybody else a JPEG, of which the first picture is shown.
    name = "JPEG" if image.format == "MPO" else str(image.format)
    return Facts(name, width, height, sha256)


def _check_bytes(size_bytes: int, maximum_bytes: int, head: bytes) -> None:
    if size_bytes == 0:
        raise CannotBeDone("the file is empty", reason="image_empty")
    if size_bytes > maximum_bytes:
        message = f"the file has {size_bytes} bytes; at most {maximum_bytes} are decoded"
        raise CannotBeDone(message, reason="image_too_large_bytes")
    seen = look(head)
    if seen.allowed:
        return
    if seen.image:
        raise CannotBeDone(
            f"it is {seen.what}, a format that is not taken; send {_TAKEN}", reason="image_format_refused"
        )
    raise CannotBeDone(f"it is not an image: it looks like {seen.what}", reason="image_unrecognised")


def _check_pixels(size: tuple[int, int], maximum_pixels: int) -> None:
    width, height = size
    if width * height > maximum_pixels:
        message = f"it has {width} x {height} pixels; at most {maximum_pixels} are decoded"
        raise CannotBeDone(message, reason="image_too_large_pixels")


def _refusal(error: Exception, head: bytes) -> CannotBeDone:
    """Put a name to what Pillow raised."""
    words = str(error) or type(error).__name__
    match error:
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return CannotBeDone(words, reason="image_too_large_pixels")
        case MemoryError():
            return CannotBeDone(
                "decoding it takes more memory than one image is allowed", reason="image_too_large_memory"
            )
        case UnidentifiedImageError():
            return CannotBeDone(
                f"it begins like {look(head).what}, but its header makes no sense", reason="image_corrupt"
            )
        case EOFError():
            return CannotBeDone("the file ends too early", reason="image_truncated")
    if "truncated" in words.lower() or "unexpected end" in words.lower():
        return CannotBeDone(f"the file ends too early ({words})", reason="image_truncated")
    return CannotBeDone(f"the file is damaged ({type(error).__name__}: {words[:200]})", reason="image_corrupt")


_TAKEN = "JPEG, PNG, GIF, TIFF, BMP, WebP or ICO"

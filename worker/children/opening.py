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

from worker.errors import CannotBeDone
from worker.images.format import HEAD_BYTES, sniff

_FORMATS = {
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/tiff": "TIFF",
    "image/webp": "WEBP",
    "image/x-icon": "ICO",
}
"""Media type to Pillow's name of what is decoded: no PostScript, no SVG, no camera formats, nothing that runs code."""

_PLUGINS = (
    BmpImagePlugin, GifImagePlugin, IcoImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin,
    WebPImagePlugin,
)  # fmt: skip
"""Imported for the formats they register; `Image.open` would import every plugin there is only when it finds none."""

_UPRIGHT = 1
_SWAPPED = range(5, 9)
"""EXIF orientations that exchange width and height."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an image is: its format, its size as it should be shown, and the digest of its bytes."""

    format: str
    width: int
    height: int
    sha256: str


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
    found = None
    try:
        size_bytes = os.fstat(fd).st_size
        found = sniff(os.pread(fd, HEAD_BYTES, 0))
        name = _allowed(found, size_bytes, maximum_bytes)
        data = _read(fd, size_bytes)
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            _check_pixels(image.size, maximum_pixels)
            yield image, _facts(image, name, hashlib.sha256(data).hexdigest())
    except CannotBeDone:
        raise
    except Exception as error:
        raise _refusal(error, found) from error


def _read(fd: int, size_bytes: int) -> bytes:
    """The whole file, or what is left of it. By position: another process may be reading it, and shares the offset."""
    pieces: list[bytes] = []
    position = 0
    while position < size_bytes and (piece := os.pread(fd, size_bytes - position, position)):
        pieces.append(piece)
        position += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. Damaged metadata is no reason to refuse a picture: it counts as upright."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except Exception:  # noqa: BLE001 - a metadata parser fed with anything raises anything
        return _UPRIGHT
    return found if found in range(1, 9) else _UPRIGHT


def _facts(image: Image.Image, name: str, sha256: str) -> Facts:
    width, height = image.size
    # Pillow turns a TIFF upright by itself while loading, and gives its size accordingly from the start.
    if name != "TIFF" and orientation(image) in _SWAPPED:
        width, height = height, width
    return Facts(name, width, height, sha256)


def _allowed(found: str | None, size_bytes: int, maximum_bytes: int) -> str:
    """Pillow's name of the one parser that may see the file."""
    if size_bytes == 0:
        raise CannotBeDone("the file is empty", reason="image_empty")
    if size_bytes > maximum_bytes:
        message = f"the file has {size_bytes} bytes; at most {maximum_bytes} are decoded"
        raise CannotBeDone(message, reason="image_too_large_bytes")
    if found in _FORMATS:
        return _FORMATS[found]
    if found is not None and found.startswith("image/"):
        message = f"it is {found}, which is not taken; send JPEG, PNG, GIF, TIFF, BMP, WebP or ICO"
        raise CannotBeDone(message, reason="image_format_refused")
    kind = f"its content is {found}" if found else "its content is of no known kind"
    raise CannotBeDone(f"it is not an image: {kind}", reason="image_unrecognised")


def _check_pixels(size: tuple[int, int], maximum_pixels: int) -> None:
    width, height = size
    if width * height > maximum_pixels:
        message = f"it has {width} x {height} pixels; at most {maximum_pixels} are decoded"
        raise CannotBeDone(message, reason="image_too_large_pixels")


def _refusal(error: Exception, found: str | None) -> CannotBeDone:
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
            return CannotBeDone(f"it begins like {found}, but its header makes no sense", reason="image_corrupt")
        case EOFError():
            return CannotBeDone("the file ends too early", reason="image_truncated")
    if "truncated" in words.lower() or "unexpected end" in words.lower():
        return CannotBeDone(f"the file ends too early ({words})", reason="image_truncated")
    return CannotBeDone(f"the file is damaged ({type(error).__name__}: {words[:200]})", reason="image_corrupt")

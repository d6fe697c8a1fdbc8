"""Opens untrusted bytes as a Pillow image, or raises the reason why they cannot be used.

The format is detected from the content, never from a name, and only the parsers of allowed formats are tried. The
header is checked before a single pixel is decoded. Only the first frame is used.
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

FORMATS = {
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/tiff": "TIFF",
    "image/webp": "WEBP",
    "image/x-icon": "ICO",
}
"""The formats that are decoded, media type to Pillow's name: no PostScript, no SVG, no camera formats, none that runs
code."""

_PLUGINS = (
    BmpImagePlugin, GifImagePlugin, IcoImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin,
    WebPImagePlugin,
)  # fmt: skip
"""Imported for the formats they register: `Image.open` would import them only when the formats that are loaded do not
match, and all other plugins with them."""

SIDEWAYS = range(5, 9)
"""The EXIF orientations in which width and height are exchanged."""

_UPRIGHT = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """An image's format (Pillow's name), its size in pixels as it should be shown, and the digest of its bytes.

    The parent's `ImageFacts` has the same fields; the child does not import it because it needs pydantic.
    """

    format: str
    width: int
    height: int
    sha256: str


def prepare(maximum_pixels: int) -> None:
    """Set Pillow's own limit on pixels, for the whole process."""
    Image.MAX_IMAGE_PIXELS = maximum_pixels
    warnings.simplefilter("ignore")  # warnings about odd metadata help neither user nor operator
    warnings.simplefilter("error", Image.DecompressionBombWarning)


@contextmanager
def opened(fd: int, *, maximum_pixels: int, maximum_bytes: int) -> Iterator[tuple[Image.Image, Facts]]:
    """The image in `fd`, its header read and checked, and its facts.

    Every exception, including one raised in the `with` block, becomes `CannotBeDone`: on malformed input Pillow raises
    nearly every type of exception, and none of them may end the decoder.
    """
    media_type = None
    try:
        size_bytes = os.fstat(fd).st_size
        media_type = sniff(os.pread(fd, HEAD_BYTES, 0))
        name = _allowed(media_type, size_bytes, maximum_bytes)
        data = _read(fd, size_bytes)
        with Image.open(io.BytesIO(data), formats=[name]) as image:
            _check_pixels(image.size, maximum_pixels)
            yield image, _facts(image, name, hashlib.sha256(data).hexdigest())
    except CannotBeDone:
        raise
    except Exception as error:
        raise _refusal(error, media_type) from error


def _read(fd: int, size_bytes: int) -> bytes:
    """The whole file, or what is left of one that has shrunk.

    Read with pread: another process may be reading the same file, and the offset is shared.
    """
    pieces: list[bytes] = []
    position = 0
    while position < size_bytes and (piece := os.pread(fd, size_bytes - position, position)):
        pieces.append(piece)
        position += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. A picture with damaged metadata is not refused: it counts as upright."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except Exception:  # noqa: BLE001 - on malformed metadata the parser may raise any type
        return _UPRIGHT
    return found if found in range(1, 9) else _UPRIGHT


def _facts(image: Image.Image, name: str, sha256: str) -> Facts:
    width, height = image.size
    # Pillow turns a TIFF upright while loading it, and reports the upright size from the start.
    if name != "TIFF" and orientation(image) in SIDEWAYS:
        width, height = height, width
    return Facts(name, width, height, sha256)


def _allowed(media_type: str | None, size_bytes: int, maximum_bytes: int) -> str:
    """Pillow's name of the only format whose parser may read the file. Raises `CannotBeDone`."""
    if size_bytes == 0:
        raise CannotBeDone("the file is empty", reason="image_empty")
    if size_bytes > maximum_bytes:
        message = f"the file has {size_bytes} bytes; at most {maximum_bytes} are decoded"
        raise CannotBeDone(message, reason="image_too_large_bytes")
    if media_type in FORMATS:
        return FORMATS[media_type]
    if media_type is not None and media_type.startswith("image/"):
        message = f"it is {media_type}, which is not taken; send JPEG, PNG, GIF, TIFF, BMP, WebP or ICO"
        raise CannotBeDone(message, reason="image_format_refused")
    kind = f"its content is {media_type}" if media_type else "its content is of no known kind"
    raise CannotBeDone(f"it is not an image: {kind}", reason="image_unrecognised")


def _check_pixels(size: tuple[int, int], maximum_pixels: int) -> None:
    width, height = size
    if width * height > maximum_pixels:
        message = f"it has {width} x {height} pixels; at most {maximum_pixels} are decoded"
        raise CannotBeDone(message, reason="image_too_large_pixels")


def _refusal(error: Exception, media_type: str | None) -> CannotBeDone:
    """Translate an exception of Pillow into a reason and a message."""
    text = str(error) or type(error).__name__
    match error:
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return CannotBeDone(text, reason="image_too_large_pixels")
        case MemoryError():
            return CannotBeDone(
                "decoding it takes more memory than one image is allowed", reason="image_too_large_memory"
            )
        case UnidentifiedImageError():
            return CannotBeDone(f"it begins like {media_type}, but its header makes no sense", reason="image_corrupt")
        case EOFError():
            return CannotBeDone("the file ends too early", reason="image_truncated")
    if "truncated" in text.lower() or "unexpected end" in text.lower():
        return CannotBeDone(f"the file ends too early ({text})", reason="image_truncated")
    return CannotBeDone(f"the file is damaged ({type(error).__name__}: {text[:200]})", reason="image_corrupt")

"""Opens untrusted bytes as a picture, or raises the reason why they cannot be used.

The format is detected from the content, never from a name, and only the parsers of allowed formats are tried. The
header is checked before a single pixel is decoded. Only the first frame is used; of a raw photograph, the largest
picture that its camera stored beside the sensor's data.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
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

from worker.children.demand import Demand, MoreWanted
from worker.children.formats import bmp, boxes, jpeg, png, raw, tiff, tiff_layout, webp
from worker.children.formats.raw import Preview
from worker.children.formats.tiff import Directory, NotTiff, Tiff
from worker.children.picture import UPRIGHT, Picture, opaque_if_empty, orientation
from worker.errors import CannotBeDone
from worker.images.format import HEAD_BYTES, sniff
from worker.images.kinds import described, is_raw

try:
    import pillow_heif
except ImportError:  # the extra `heif`
    pillow_heif = None  # type: ignore[assignment]

FORMATS = {
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/tiff": "TIFF",
    "image/webp": "WEBP",
    "image/x-icon": "ICO",
}
"""The formats that every Pillow decodes, media type to its name: no PostScript, no SVG, none that runs code."""

_AVIF = {"image/avif": "AVIF"}
"""What most builds of Pillow have."""

_HEIF = {"image/heic": "HEIF", "image/heif": "HEIF"}
"""What `pillow-heif` adds."""

_PLUGINS = (
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, IcoImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin,
    TiffImagePlugin, WebPImagePlugin,
)  # fmt: skip
"""Imported for the formats they register: `Image.open` would import them only when the formats that are loaded do not
match, and all other plugins with them."""

TOO_MUCH_MEMORY = "image_too_large_memory"
_NO_DECODER = "could not create decoder"
"""What is said of a WebP whose header makes no sense, and of one for which there is too little memory."""

_LONG_HEAD_BYTES = 1 << 16
"""How much is examined of what looks like text: an SVG may begin with a long comment."""


@dataclass(frozen=True, slots=True)
class Facts:
    """An image's format (one of `PICTURE_FORMATS`), its size in pixels as it should be shown, its bytes' digest.

    The parent's `ImageFacts` has the same fields; the child does not import it because it needs pydantic.
    """

    format: str
    width: int
    height: int
    sha256: str


def prepare(maximum_pixels: int) -> None:
    """Set the libraries' own limits, for the whole process: pixels, and no threads, which the sandbox forbids."""
    Image.MAX_IMAGE_PIXELS = maximum_pixels
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if pillow_heif is not None:
        pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    warnings.simplefilter("ignore")  # warnings about odd metadata help neither user nor operator
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def needs_threads() -> bool:
    """Whether a library has been loaded that starts threads: libde265 does for every HEIC."""
    return pillow_heif is not None


def readable() -> dict[str, str]:
    """The formats that can be decoded here, media type to Pillow's name."""
    return FORMATS | (_AVIF if AvifImagePlugin.SUPPORTED else {}) | (_HEIF if pillow_heif is not None else {})


@contextmanager
def opened(
    fd: int, demand: Demand, *, formats: Mapping[str, str], maximum_pixels: int, maximum_bytes: int
) -> Iterator[tuple[Picture, Facts]]:
    """The picture in `fd`, its header read and checked, and its facts. `formats`: as `readable` gives them.

    Raises `MoreWanted` when it takes more than it is granted. Every other exception, including one raised in the `with`
    block, becomes `CannotBeDone`: on malformed input Pillow raises nearly every type of exception, and none of them may
    end the decoder.
    """
    media_type, data = None, b""
    try:
        size_bytes = os.lseek(fd, 0, os.SEEK_END)  # glibc's fstat() takes the call that looks at any path
        media_type = _media_type(fd)
        _check_kind(media_type, formats, size_bytes, maximum_bytes)
        data = _read(fd, size_bytes)
        if media_type == "image/webp" and (canvas := webp.canvas(data)) is not None:
            _check_pixels(canvas.size, maximum_pixels)  # merely to open it takes the memory
        demand.check_file(media_type, data)
        picture = _picture(data, media_type, formats, demand)
        with picture.image:
            _check_pixels(picture.image.size, maximum_pixels)
            demand.check_picture(picture.image, picture.format, data)
            yield picture, Facts(picture.format, *picture.size, hashlib.sha256(data).hexdigest())
    except (CannotBeDone, MoreWanted):
        raise
    except Exception as error:
        refusal = _refusal(error, media_type, data, demand)
        demand.after_failure(of_memory=refusal.reason == TOO_MUCH_MEMORY)
        raise refusal from error


def _media_type(fd: int) -> str | None:
    media_type = sniff(os.pread(fd, HEAD_BYTES, 0))
    if media_type in (None, "text/plain", "application/xml"):
        media_type = sniff(os.pread(fd, _LONG_HEAD_BYTES, 0))
    return media_type


def _picture(data: bytes, media_type: str | None, formats: Mapping[str, str], demand: Demand) -> Picture:
    """The picture in `data`. Raises `CannotBeDone`, `MoreWanted`, or whatever Pillow raises."""
    match media_type:
        case "image/jpeg":
            return _jpeg(data)
        case "image/tiff":
            return _tiff(data)
        case "image/png":
            image, data = _open_or_mend("PNG", data, png.mended)
            demand.check_picture(image, "PNG", data)
            finish = png.prepare(image, data)
            # Only now: Pillow loads a PNG to find its orientation, which may follow the pixels.
            return Picture(image, "PNG", orientation(image), finish)
        case "image/bmp" | "image/x-icon":
            name = FORMATS[media_type]
            return Picture(Image.open(io.BytesIO(data), formats=[name]), name, eight_bits=opaque_if_empty)
        case "image/x-fuji-raf":
            return _of_raw(data, "RAF", raw.largest_in_raf(data))
        case "image/x-canon-cr3":
            return _of_raw(data, "CR3", raw.largest_in_cr3(data))
        case "image/x-canon-cr2" | "image/x-olympus-orf" | "image/x-panasonic-rw2":
            found = Tiff(data)
            kind = media_type[-3:].upper()
            return _of_raw(data, kind, raw.largest_in_tiff(data, found), found)
        case "image/webp":
            image, _ = _open_or_mend("WEBP", data, webp.mended)
            return Picture(image, "WEBP", orientation(image))
    name = formats[media_type or ""]
    image = Image.open(io.BytesIO(data), formats=[name])
    return Picture(image, name, orientation(image))


def _open_or_mend(name: str, data: bytes, mend: Callable[[bytes], bytes]) -> tuple[Image.Image, bytes]:
    """Open `data`; if Pillow refuses it, then what `mend` makes of it. Raises Pillow's first refusal."""
    try:
        return Image.open(io.BytesIO(data), formats=[name]), data
    except OSError as refusal:
        mended = mend(data)
        try:
            return Image.open(io.BytesIO(mended), formats=[name]), mended
        except OSError:
            raise refusal from None


def _jpeg(data: bytes, kind: str = "JPEG", turn: int = UPRIGHT) -> Picture:
    """`kind` and `turn`: of the file that the JPEG is a part of; the JPEG's own turn, if it has one, counts."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    own = orientation(image)
    return Picture(image, kind, own if own != UPRIGHT else turn, mended=partial(jpeg.with_its_end, data))


def _tiff(data: bytes) -> Picture:
    found = Tiff(data)
    kind = raw.tiff_kind(data, found)
    if kind is not None:
        return _of_raw(data, kind, raw.largest_in_tiff(data, found), found)
    whole = [each for each in found.directories if not each.is_reduced and not each.is_mask]
    return _of_directory(data, found, whole[0] if whole else found.chain[0])


def _of_directory(data: bytes, found: Tiff, directory: Directory, kind: str = "TIFF") -> Picture:
    chosen = tiff_layout.layout(directory)
    if directory is not found.chain[0]:
        data = found.starting_with(directory)
    # Pillow turns a TIFF upright while loading it, and reports the upright size from the start.
    return Picture(tiff_layout.open_with(data, chosen), kind, eight_bits=chosen.finish)


def _of_raw(data: bytes, kind: str, preview: Preview | None, found: Tiff | None = None) -> Picture:
    if preview is None:
        message = (
            f"it is a raw photograph ({kind}) without a preview of at least {raw.MINIMUM_SIDE} pixels a side; "
            "raw photographs are not developed here: send a JPEG of it"
        )
        raise CannotBeDone(message, reason="image_format_refused")
    if preview.directory is not None and found is not None:
        return _of_directory(data, found, preview.directory, kind)
    turn = preview.orientation if preview.orientation in range(1, 9) else UPRIGHT
    return _jpeg(data[preview.start : preview.end], kind, turn)


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


def _check_kind(media_type: str | None, formats: Mapping[str, str], size_bytes: int, maximum_bytes: int) -> None:
    """Raises `CannotBeDone` for a file that no parser here may read."""
    if size_bytes == 0:
        raise CannotBeDone("the file is empty", reason="image_empty")
    if size_bytes > maximum_bytes:
        message = f"the file has {size_bytes} bytes; at most {maximum_bytes} are decoded"
        raise CannotBeDone(message, reason="image_too_large_bytes")
    if media_type in formats or is_raw(media_type):
        return
    if media_type in _HEIF:
        remedy = (
            "the machine's sandbox allows no threads"
            if pillow_heif is not None
            else "install its extra: pip install 'autotag-worker[heif]'"
        )
        message = f"it is {described(media_type)}, which this installation does not read: {remedy}"
        raise CannotBeDone(message, reason="image_format_refused")
    if media_type is not None and media_type.startswith("image/"):
        message = f"it is {described(media_type)}, which is not taken; send JPEG, PNG, GIF, TIFF, BMP, WebP or AVIF"
        raise CannotBeDone(message, reason="image_format_refused")
    raise CannotBeDone(f"it is not an image: its content is {described(media_type)}", reason="image_unrecognised")


def _check_pixels(size: tuple[int, int], maximum_pixels: int) -> None:
    width, height = size
    if width * height > maximum_pixels:
        message = f"it has {width} x {height} pixels; at most {maximum_pixels} are decoded"
        raise CannotBeDone(message, reason="image_too_large_pixels")


def _refusal(error: Exception, media_type: str | None, data: bytes, demand: Demand) -> CannotBeDone:
    """Translate an exception of Pillow into a reason and a message."""
    text = str(error) or type(error).__name__
    match error:
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return CannotBeDone(text, reason="image_too_large_pixels")
        case MemoryError():
            message = "decoding it takes more memory than one image is allowed"
            return CannotBeDone(message, reason=TOO_MUCH_MEMORY)
        case EOFError():
            return CannotBeDone("the file ends too early", reason="image_truncated")
    if ("memory" in text.lower() and "alloc" in text.lower()) or (_NO_DECODER in text and demand.takes_nearly_all):
        return CannotBeDone(f"decoding it takes too much memory ({text[:200]})", reason=TOO_MUCH_MEMORY)
    if (kind := _kind_not_read(media_type, data)) is not None:
        return CannotBeDone(f"it is {kind}, which is not read; send JPEG, PNG or TIFF", reason="image_format_refused")
    if _is_cut(error, text, media_type, data):
        return CannotBeDone(f"the file ends too early ({text[:200]})", reason="image_truncated")
    if isinstance(error, UnidentifiedImageError):
        message = f"it begins like {described(media_type)}, but its header makes no sense"
        return CannotBeDone(message, reason="image_corrupt")
    return CannotBeDone(f"the file is damaged ({type(error).__name__}: {text[:200]})", reason="image_corrupt")


def _kind_not_read(media_type: str | None, data: bytes) -> str | None:
    """What people call a rare kind of a format that is taken, one that Pillow cannot decode; None for any other."""
    if media_type == "image/jpeg" and (frame := jpeg.frame(data)) is not None:
        return frame.kind_not_read
    if media_type == "image/bmp":
        return bmp.kind_not_read(data)
    return None


def _is_cut(error: Exception, text: str, media_type: str | None, data: bytes) -> bool:
    """Whether a file ends before its picture does."""
    if isinstance(error, NotTiff):
        return error.truncated
    if "truncated" in text.lower() or "unexpected end" in text.lower():
        return True
    match media_type:
        case "image/tiff":
            return tiff.is_cut(data)
        case "image/avif" | "image/heic" | "image/heif":
            return boxes.is_cut(data)
        case "image/webp":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return False

"""Renders an opened image as a model's input, or as a JPEG within a cloud service's limits.

As few operations as possible are done on the large picture: a JPEG is decoded at a fraction of its size where that is
enough, and transparency, colour space and orientation are converted on the small picture.
"""

from __future__ import annotations

import io
import math

from PIL import Image, ImageCms, JpegImagePlugin

from worker.children.opening import SIDEWAYS, orientation
from worker.errors import CannotBeDone
from worker.images.requests import Interpolation, JpegLimits, PixelRecipe

DRAFT_FACTOR = 1.5
"""A JPEG is decoded at no less than this times the target size, so that the resampling, and not the decoder's coarser
averaging, makes the final pixels. Measured with 100 photographs of 3 megapixels against decoding them whole (27 ms):
at 1, 1.5 and 2 the pixels differ by 0.9, 0.3 and 0.3 of 255 on average, for 6, 9 and 11 ms. The quantised model's first
label changed for one or two of the hundred at each of them."""

_REDUCING_GAP = 3.0
"""Pillow's compromise: first reduce by an integer factor, but to no less than this times the target size."""

_FILTERS = {
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the transposition that turns it upright; 1 is upright already."""

_QUALITIES = (90, 82, 74, 66, 58, 50, 40)
_SHRINK_STEP = 0.75
_MINIMUM_SIDE = 16


def pixels(image: Image.Image, recipe: PixelRecipe) -> bytes:
    """The model's input: `size` rows of `size` RGB pixels of 3 bytes, upright, white where the image is transparent."""
    size = recipe.size
    left, _, right, _ = recipe.box(*image.size)
    _draft(image, DRAFT_FACTOR * size / (right - left))
    image.load()
    turn = _TURNS.get(orientation(image))
    # The box is in the middle, so it is the same part of the picture before and after the turn.
    box = recipe.box(*image.size)
    small = _plain(image).resize((size, size), _FILTERS[recipe.interpolation], box=box, reducing_gap=_REDUCING_GAP)
    small = _on_white(small)
    return (small.transpose(turn) if turn is not None else small).tobytes()


def jpeg(image: Image.Image, limits: JpegLimits) -> bytes:
    """The image as a JPEG within `limits`: upright, without metadata, white where it is transparent.

    Raises `CannotBeDone` when no quality and no size makes it small enough.
    """
    # Pillow turns a TIFF upright while loading it.
    turn = _TURNS.get(orientation(image)) if image.format != "TIFF" else None
    sideways = turn is not None and orientation(image) in SIDEWAYS
    width, height = image.size[::-1] if sideways else image.size
    fitted = _fitted(width, height, limits)
    _draft(image, max(fitted) / max(width, height))
    image.load()
    drawn = fitted[::-1] if sideways else fitted
    picture = _plain(image)
    if picture.size != drawn:
        picture = picture.resize(drawn, Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    picture = _on_white(picture)
    if turn is not None:
        picture = picture.transpose(turn)
    return _small_enough(_padded(picture, limits), limits)


def _fitted(width: int, height: int, limits: JpegLimits) -> tuple[int, int]:
    """The size to draw at: within the maximum, and at least the minimum where the aspect ratio allows both."""
    at_least = max(limits.minimum_width / width, limits.minimum_height / height)
    at_most = min(limits.maximum_width / width, limits.maximum_height / height)
    scale = min(max(1.0, at_least), at_most)
    return max(1, min(round(width * scale), limits.maximum_width)), max(
        1, min(round(height * scale), limits.maximum_height)
    )


def _padded(picture: Image.Image, limits: JpegLimits) -> Image.Image:
    """The picture on a white canvas where one side is still too short, as of a long narrow picture."""
    width, height = max(picture.width, limits.minimum_width), max(picture.height, limits.minimum_height)
    if (width, height) == picture.size:
        return picture
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return canvas


def _small_enough(picture: Image.Image, limits: JpegLimits) -> bytes:
    """Lower the quality step by step, then the size. Raises `CannotBeDone`."""
    while True:
        for quality in _QUALITIES:
            written = io.BytesIO()
            picture.save(written, "JPEG", quality=quality, optimize=True)
            if written.tell() <= limits.maximum_bytes:
                return written.getvalue()
        width, height = round(picture.width * _SHRINK_STEP), round(picture.height * _SHRINK_STEP)
        if width < max(_MINIMUM_SIDE, limits.minimum_width) or height < max(_MINIMUM_SIDE, limits.minimum_height):
            message = f"no JPEG of it is as small as {limits.maximum_bytes} bytes"
            raise CannotBeDone(message, reason="image_cannot_be_shrunk")
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)


def _draft(image: Image.Image, scale: float) -> None:
    """Have a JPEG decoded at the smallest of 1/8, 1/4, 1/2, 1/1 of its size that is not less than `scale`."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and scale < 1:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))


def _plain(image: Image.Image) -> Image.Image:
    """The same picture in a mode that resamples well: L, RGB, RGBA or CMYK, 8 bits a channel."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    match image.mode:
        case "L" | "RGB" | "CMYK":
            return image
        case "1":
            return image.convert("L")
        case "I" | "F" | "I;16" | "I;16L" | "I;16B" | "I;16N":
            return _eight_bits(image)
        case "LAB":
            lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
            return converted if converted is not None else image.convert("RGB")
        case _:
            return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Deep greys scaled to 0..255. Pillow's own conversion would clip them: nearly everything would become white.

    The range of sixteen-bit files is 0..65535. Other depths have no agreed white, so their own range is stretched,
    unless it is that of a plain 8-bit picture or, for floating point, 0..1.
    """
    darkest, brightest = (float(value) for value in _extrema(image))
    if image.mode.startswith("I;16"):
        darkest, brightest = 0.0, 65535.0
    elif darkest >= 0 and brightest <= 1 and image.mode == "F":
        darkest, brightest = 0.0, 1.0
    elif darkest >= 0 and brightest <= 255:
        darkest, brightest = 0.0, 255.0
    elif darkest >= 0 and brightest <= 65535 and image.mode == "I":
        darkest, brightest = 0.0, 65535.0
    gain = 255.0 / ((brightest - darkest) or 1.0)
    return image.point(lambda value: value * gain + (-darkest * gain)).convert("L")


def _extrema(image: Image.Image) -> tuple[float, float]:
    darkest, brightest = image.getextrema()
    if isinstance(darkest, tuple) or isinstance(brightest, tuple) or not math.isfinite(darkest + brightest):
        raise CannotBeDone("its brightness is not a finite number", reason="image_corrupt")
    return darkest, brightest


def _on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB, blended with white where it is transparent."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image)
    return canvas.convert("RGB")

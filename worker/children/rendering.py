"""Renders an opened image as a model's input, or as a JPEG within a cloud service's limits.

As few operations as possible are done on the large picture: a JPEG is decoded at a fraction of its size where that is
enough, and transparency, colour space and orientation are converted on the small picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from PIL import Image

from worker.children.picture import SIDEWAYS, Picture
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


def pixels(
    picture: Picture, recipes: Sequence[PixelRecipe], also: Callable[[Image.Image], None] = lambda _decoded: None
) -> bytes:
    """The models' inputs one after another, each `size` rows of `size` RGB pixels of 3 bytes.

    They are upright, and white where the image is transparent. It is decoded once, for the largest of them; `also` is
    called with the decoded picture.
    """
    decoded = picture.decoded(DRAFT_FACTOR * max(recipe.scale(*picture.image.size) for recipe in recipes))
    also(decoded)
    turn = _TURNS.get(picture.orientation)
    return b"".join(_square(decoded, recipe, turn) for recipe in recipes)


def _square(decoded: Image.Image, recipe: PixelRecipe, turn: Image.Transpose | None) -> bytes:
    # The box is in the middle, so it is the same part of the picture before and after the turn.
    box, drawn = recipe.box(*decoded.size), recipe.drawn(*decoded.size)
    small = _on_white(decoded.resize(drawn, _FILTERS[recipe.interpolation], box=box, reducing_gap=_REDUCING_GAP))
    small = small.transpose(turn) if turn is not None else small
    if small.size != (recipe.size, recipe.size):
        square = Image.new("RGB", (recipe.size, recipe.size), (recipe.fill,) * 3)
        square.paste(small, ((recipe.size - small.width) // 2, (recipe.size - small.height) // 2))
        small = square
    return small.tobytes()


def square(decoded: Image.Image, orientation: int, side: int) -> Image.Image:
    """All of a decoded picture as a small RGB square, upright, white where it is transparent."""
    small = _on_white(decoded.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP))
    turn = _TURNS.get(orientation)
    return small.transpose(turn) if turn is not None else small


def jpeg(picture: Picture, limits: JpegLimits) -> bytes:
    """The image as a JPEG within `limits`: upright, without metadata, white where it is transparent.

    Raises `CannotBeDone` when no quality and no size makes it small enough.
    """
    width, height = picture.size
    fitted = _fitted(width, height, limits)
    decoded = picture.decoded(max(fitted) / max(width, height))
    drawn = fitted[::-1] if picture.orientation in SIDEWAYS else fitted
    if decoded.size != drawn:
        decoded = decoded.resize(drawn, Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    decoded = _on_white(decoded)
    turn = _TURNS.get(picture.orientation)
    if turn is not None:
        decoded = decoded.transpose(turn)
    return _small_enough(_padded(decoded, limits), limits)


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


def _on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB, blended with white where it is transparent."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image)
    return canvas.convert("RGB")

"""An opened image: its header read, its pixels not yet, and how they become 8-bit ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageCms, JpegImagePlugin

SIDEWAYS = range(5, 9)
"""The EXIF orientations in which width and height are exchanged."""

UPRIGHT = 1


def plain(image: Image.Image) -> Image.Image:
    """The same picture in a mode that resamples well: L, RGB, RGBA or CMYK, 8 bits a channel.

    For the modes whose meaning is clear by themselves. Deeper ones are the business of their format's module.
    """
    if image.has_transparency_data:
        return image.convert("RGBA")
    match image.mode:
        case "L" | "RGB" | "CMYK":
            return image
        case "1":
            return image.convert("L")
        case "LAB":
            lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
            return converted if converted is not None else image.convert("RGB")
        case _:
            return image.convert("RGB")


def opaque_if_empty(image: Image.Image) -> Image.Image:
    """`plain`, but an alpha that is 0 everywhere is no transparency: for formats in which it may be left unset."""
    if image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema() == (0, 0):
        return image.convert(image.mode.removesuffix("A"))
    return plain(image)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. A picture with damaged metadata is not refused: it counts as upright."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # noqa: BLE001 - on malformed metadata the parser may raise any type
        return UPRIGHT
    return found if found in range(1, 9) else UPRIGHT


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture. `format` is what results call it; `orientation` is the turn that `decoded` leaves to be done.

    `eight_bits` makes a mode that resamples well of the decoded image. `mended` opens what Pillow takes for damaged and
    is not; it gives None for a picture that is.
    """

    image: Image.Image
    format: str
    orientation: int = UPRIGHT
    eight_bits: Callable[[Image.Image], Image.Image] = plain
    mended: Callable[[], Image.Image | None] = lambda: None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as it should be shown."""
        width, height = self.image.size
        return (height, width) if self.orientation in SIDEWAYS else (width, height)

    def decoded(self, scale: float) -> Image.Image:
        """The pixels as stored: L, RGB, RGBA or CMYK, 8 bits a channel.

        A JPEG is decoded at the smallest of 1/8, 1/4, 1/2, 1/1 of its size that is not less than `scale`.
        """
        try:
            return self.eight_bits(_loaded(self.image, scale))
        except OSError:
            mended = self.mended()
            if mended is None:
                raise
            return self.eight_bits(_loaded(mended, scale))


def of_pillow(image: Image.Image) -> Picture:
    """The picture in an image that Pillow has opened, of a format whose modes say all there is to know."""
    return Picture(image, image.format or "", orientation(image))


def _loaded(image: Image.Image, scale: float) -> Image.Image:
    if isinstance(image, JpegImagePlugin.JpegImageFile) and scale < 1:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
    image.load()
    return image

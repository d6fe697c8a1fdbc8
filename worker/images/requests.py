"""What a decoder is asked to produce from an image: plain values, so that a decoder need not import pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fit(StrEnum):
    """How an image becomes a square: its middle is cut out, all of it is squashed, or bars are put beside it."""

    CROP = "crop"
    SQUASH = "squash"
    PAD = "pad"


class Interpolation(StrEnum):
    """How pixels are resampled."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class PixelRecipe:
    """How a decoder renders an image for the model: an RGB square with sides of `size` pixels, 8 bits per channel."""

    size: int
    fit: Fit
    margin: int
    interpolation: Interpolation
    fill: int = 0
    """Of the bars, from 0 for black to 255 for white."""

    @property
    def bytes(self) -> int:
        """Of the square."""
        return self.size * self.size * 3

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that is used, in pixels: left, top, right, bottom.

        A crop is the middle square of side `size / (size + margin)` of the shorter side, as in the model's training.
        """
        if self.fit is not Fit.CROP:
            return 0.0, 0.0, float(width), float(height)
        side = min(width, height) * self.size / (self.size + self.margin)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def drawn(self, width: int, height: int) -> tuple[int, int]:
        """The size at which that part is drawn: all of the square, or as much of it as has the image's shape."""
        if self.fit is not Fit.PAD:
            return self.size, self.size
        scale = self.size / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def scale(self, width: int, height: int) -> float:
        """Of the side that is drawn to the part of the image that it shows, where that is the largest."""
        left, top, right, bottom = self.box(width, height)
        across, down = self.drawn(width, height)
        return max(across / (right - left), down / (bottom - top))


@dataclass(frozen=True, slots=True)
class JpegLimits:
    """The limits of the JPEG that a service accepts; a decoder re-encodes any upload to a JPEG within them."""

    maximum_bytes: int
    maximum_width: int
    maximum_height: int
    minimum_width: int = 1
    minimum_height: int = 1

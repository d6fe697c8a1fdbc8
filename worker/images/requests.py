"""What a decoder is asked to produce from an image: plain values, so that a decoder need not import pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fit(StrEnum):
    """How an image becomes a square: the middle is cut out, or the whole image is squashed."""

    CROP = "crop"
    SQUASH = "squash"


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

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that is used, in pixels: left, top, right, bottom.

        A crop is the middle square of side `size / (size + margin)` of the shorter side, as in the model's training.
        """
        if self.fit is Fit.SQUASH:
            return 0.0, 0.0, float(width), float(height)
        side = min(width, height) * self.size / (self.size + self.margin)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side


@dataclass(frozen=True, slots=True)
class JpegLimits:
    """The limits of the JPEG that a service accepts; a decoder re-encodes any upload to a JPEG within them."""

    maximum_bytes: int
    maximum_width: int
    maximum_height: int
    minimum_width: int = 1
    minimum_height: int = 1

"""What a decoder is asked to make of an image: plain values, so that a decoder need not import pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fit(StrEnum):
    """How a picture becomes a square: cut out of the middle, or squashed whole."""

    CROP = "crop"
    SQUASH = "squash"


class Interpolation(StrEnum):
    """How pixels are resampled."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class PixelRecipe:
    """What a decoder makes of a picture: an RGB square of `size` pixels a side, 8 bits a channel."""

    size: int
    fit: Fit
    margin: int
    interpolation: Interpolation

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a picture that is used, in pixels: left, top, right, bottom.

        A crop is the middle square of side `size / (size + margin)` of the shorter side, as at the model's training.
        """
        if self.fit is Fit.SQUASH:
            return 0.0, 0.0, float(width), float(height)
        side = min(width, height) * self.size / (self.size + self.margin)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side


@dataclass(frozen=True, slots=True)
class JpegLimits:
    """The largest JPEG that a service takes; a decoder makes one within these limits from whatever was uploaded."""

    maximum_bytes: int
    maximum_width: int
    maximum_height: int
    minimum_width: int = 1
    minimum_height: int = 1

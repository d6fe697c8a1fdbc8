"""Images for quantising a model and for checking the result: crops of the photographs that scikit-image ships.

Quantisation needs the range of values that real images produce in each layer: if it is too narrow, confident answers
are clipped; if it is too wide, all answers are coarse. Compared with calibration on 100 labelled photographs, by the
number of them labelled correctly: with crops of these eight photographs, the same; with two photographs that the models
are unsure about, 3 fewer; with images from microscopes and telescopes included, up to 3 fewer; with coloured noise, 1
fewer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from worker.errors import Misconfigured
from worker.images.requests import Interpolation, PixelRecipe
from worker.models.runtimes.runtime import PixelArray
from worker.models.tensorflow_extra import INSTALL_IT

CALIBRATION = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coins.png",
    "grass.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
# Not used in calibration.
HELD_OUT = ("coffee.png",)

RESAMPLING = {Interpolation.BICUBIC: Image.Resampling.BICUBIC, Interpolation.BILINEAR: Image.Resampling.BILINEAR}


def crops(names: Sequence[str], each: int, recipe: PixelRecipe, seed: int) -> Iterator[PixelArray]:
    """Random squares of photographs, `[S, S, 3]`, with random mirroring, brightness, contrast and colour.

    `each` is the number of crops per photograph. The same seed gives the same crops.
    """
    random = np.random.default_rng(seed)
    for name in names:
        with Image.open(_directory() / name) as opened:
            photograph = opened.convert("RGB")
        for _ in range(each):
            yield np.asarray(_vary(_square(photograph, recipe, random), random))


def extremes(size: int) -> PixelArray:
    """An image that is half black, half white: it extends the calibrated input range to the whole range of a byte.

    The converter then gives the input exactly the scale and zero point of `(pixel - 127) / 128`, so that raw pixels are
    valid input of the quantised model without conversion.
    """
    image = np.zeros((size, size, 3), np.uint8)
    image[:, size // 2 :] = 255
    return image


def _directory() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise Misconfigured(
            f"building a model needs the photographs of scikit-image: {INSTALL_IT}", reason="photographs"
        )
    return Path(spec.origin).with_name("data")


def _square(photograph: Image.Image, recipe: PixelRecipe, random: np.random.Generator) -> Image.Image:
    side = random.uniform(0.4, 1.0) * min(photograph.size)
    left, top = random.uniform(0, photograph.width - side), random.uniform(0, photograph.height - side)
    box = (left, top, left + side, top + side)
    return photograph.resize((recipe.size, recipe.size), RESAMPLING[recipe.interpolation], box=box)


def _vary(square: Image.Image, random: np.random.Generator) -> Image.Image:
    if random.random() < 0.5:
        square = ImageOps.mirror(square)
    square = ImageEnhance.Brightness(square).enhance(random.uniform(0.6, 1.4))
    square = ImageEnhance.Contrast(square).enhance(random.uniform(0.7, 1.3))
    return ImageEnhance.Color(square).enhance(random.uniform(0.5, 1.5))

"""Pictures for quantising a model and for checking the result: crops of the photographs that scikit-image ships.

Quantisation needs the range of numbers that real pictures cause in each layer: too narrow and a sure answer is cut off,
too wide and all answers are coarse. Measured against calibration with 100 labelled photographs, counting those of them
that are labelled rightly: with crops of these eight photographs as good; with two that the models are unsure about, 3
fewer; with pictures from microscopes and telescopes among them, up to 3 fewer; with coloured noise, 1 fewer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from worker.errors import Misconfigured
from worker.images.requests import Interpolation, PixelRecipe

Pixels = npt.NDArray[np.uint8]

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
# Nothing of this one is seen in calibration.
HELD_OUT = ("coffee.png",)

RESAMPLING = {Interpolation.BICUBIC: Image.Resampling.BICUBIC, Interpolation.BILINEAR: Image.Resampling.BILINEAR}


def crops(names: Sequence[str], each: int, recipe: PixelRecipe, seed: int) -> Iterator[Pixels]:
    """Random squares of photographs, `[S, S, 3]`, mirrored, lit and coloured at random. Same seed, same crops."""
    random = np.random.default_rng(seed)
    for name in names:
        with Image.open(_directory() / name) as opened:
            photograph = opened.convert("RGB")
        for _ in range(each):
            yield np.asarray(_vary(_square(photograph, recipe, random), random))


def extremes(size: int) -> Pixels:
    """Half black, half white. With it the calibrated range of the input is the whole range of a byte.

    The converter then gives the input the very scale and zero point of `(pixel - 127) / 128`, so that raw pixels can be
    fed to the quantised model as they are.
    """
    picture = np.zeros((size, size, 3), np.uint8)
    picture[:, size // 2 :] = 255
    return picture


def _directory() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise Misconfigured(
            "building a model needs the photographs of scikit-image: pip install scikit-image", reason="photographs"
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

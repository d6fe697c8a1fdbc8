"""`python decoders.py IMAGES SIZE SECONDS`: libraries that turn a JPEG into the model's input, on the same files.

Each makes the same picture: the middle square, `SIZE` pixels a side, RGB. Prints a JSON object a line; `off` is how far
its pixels are, on average, from those of decoding the whole file with Pillow, of 255.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["VIPS_CONCURRENCY"] = "1"

import numpy as np
from PIL import Image
from rounds import measure

from worker.children import opening, rendering
from worker.children.picture import of_pillow
from worker.images.requests import Fit, Interpolation, PixelRecipe

MARGIN = 32
KINDS = ("web", "1mp", "12mp", "24mp", "collage24")

Decoder = Callable[[bytes], np.ndarray]


class Decoders:
    """Each method makes a decoder. Raises ImportError, OSError or RuntimeError where its library is not to be had."""

    def __init__(self, recipe: PixelRecipe) -> None:
        self._recipe = recipe
        self._size = recipe.size

    def pillow_whole(self) -> Decoder:
        """Every pixel of the file."""

        def decode(data: bytes) -> np.ndarray:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                return self._fitted(np.asarray(image.convert("RGB")))

        return decode

    def pillow_draft(self) -> Decoder:
        """What Autotag does."""

        def decode(data: bytes) -> np.ndarray:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                pixels = rendering.pixels(of_pillow(image), [self._recipe])
            return np.frombuffer(pixels, np.uint8).reshape(self._size, self._size, 3)

        return decode

    def simplejpeg(self, *, fast: bool = False) -> Decoder:
        """libjpeg-turbo without Pillow's layers; `fast` with its coarser arithmetic."""
        import simplejpeg

        def decode(data: bytes) -> np.ndarray:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            share = min(1.0, self._scale(width, height))
            least = {"min_height": int(height * share), "min_width": int(width * share), "min_factor": 1}
            return self._fitted(simplejpeg.decode_jpeg(data, "RGB", fast, fast, **least))

        return decode

    def turbojpeg(self) -> Decoder:
        """The same library through ctypes."""
        from turbojpeg import TJPF_RGB, TurboJPEG

        turbo = TurboJPEG()

        def decode(data: bytes) -> np.ndarray:
            width, height, _, _ = turbo.decode_header(data)[:4]
            share = self._scale(width, height)
            part = next((part for part in (8, 4, 2) if 1 / part >= share), 1)
            return self._fitted(turbo.decode(data, pixel_format=TJPF_RGB, scaling_factor=(1, part)))

        return decode

    def vips(self) -> Decoder:
        """libvips' own way to a thumbnail, which is not the same filter."""
        import pyvips

        pyvips.cache_set_max(0)
        side = self._size + MARGIN

        def decode(data: bytes) -> np.ndarray:
            square = pyvips.Image.thumbnail_buffer(data, side, height=side, crop="centre")
            pixels = square.crop(MARGIN // 2, MARGIN // 2, self._size, self._size)
            return np.frombuffer(pixels.write_to_memory(), np.uint8).reshape(self._size, self._size, 3)

        return decode

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        image = Image.fromarray(pixels)
        box = self._recipe.box(*image.size)
        size = (self._size, self._size)
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))

    def _scale(self, width: int, height: int) -> float:
        """The smallest share of the size that a JPEG may be decoded at."""
        left, _, right, _ = self._recipe.box(width, height)
        return rendering.DRAFT_FACTOR * self._size / (right - left)


def decoders(recipe: PixelRecipe) -> dict[str, Decoder]:
    """The candidates that can be had here, by name; the first is the reference. Prints who is missing, and why."""
    maker = Decoders(recipe)
    makers: dict[str, Callable[[], Decoder]] = {
        "Pillow, whole": maker.pillow_whole,
        "Pillow, draft (in use)": maker.pillow_draft,
        "simplejpeg": maker.simplejpeg,
        "simplejpeg, fast": lambda: maker.simplejpeg(fast=True),
        "PyTurboJPEG": maker.turbojpeg,
        "pyvips": maker.vips,
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except (ImportError, OSError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            print(json.dumps({"what": "decoder", "on": "-", "who": name, "failed": why}))
    return found


def main() -> None:
    """Measure on each kind of JPEG."""
    folder, size, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    recipe = PixelRecipe(size, Fit.CROP, MARGIN, Interpolation.BICUBIC)
    opening.prepare(50_000_000)
    candidates = decoders(recipe)
    for kind in KINDS:
        files = [file.read_bytes() for file in sorted((folder / kind).iterdir())[:60]]
        reference = candidates["Pillow, whole"](files[0]).astype(int)
        for name, found in measure(candidates, files, seconds).items():
            line = {"what": "decoder", "on": kind, "who": name, **found}
            if "failed" not in found:
                line["off"] = round(float(np.abs(candidates[name](files[0]).astype(int) - reference).mean()), 2)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

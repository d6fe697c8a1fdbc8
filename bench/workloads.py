"""The photographs that everybody is given, made from those that scikit-image ships: crops, mirrored, lit differently.

    web         about 500 x 375, JPEG quality 85: what a web page or a document holds
    1mp … 24mp  JPEG quality 90 in 4:3, from one picture each at several sizes: what a telephone or a camera makes
    collage24   24 megapixels again, of many small photographs at full sharpness: the most detail a file can hold
    png         about 500 x 375 again, as PNG

The same seed makes the same files; they are made once and kept.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg")
WEB_SIZE = (500, 375)
MEGAPIXELS = (1, 12, 24)
WEB_IMAGES = 1000
PNG_IMAGES = 100
LARGE_IMAGES = 6
_SEED = 2026
_REVISION = 3
_GRAIN = 2.0
"""Standard deviation of the sensor noise laid over enlarged pictures; without it they would compress like none do."""


@dataclass(frozen=True, slots=True)
class Workloads:
    """Where the photographs are, by kind."""

    folder: Path

    def files(self, kind: str) -> list[Path]:
        """All files of a kind, in order. Raises KeyError for a kind that there is not."""
        found = sorted((self.folder / kind).iterdir()) if (self.folder / kind).is_dir() else []
        if not found:
            raise KeyError(f"no workload {kind!r} in {self.folder}")
        return found

    def describe(self) -> dict[str, dict[str, float]]:
        """How many files of each kind there are, and their size on average."""
        described: dict[str, dict[str, float]] = {}
        for each in sorted(path for path in self.folder.iterdir() if path.is_dir()):
            sizes = [file.stat().st_size for file in each.iterdir()]
            described[each.name] = {"files": len(sizes), "mean_bytes": round(sum(sizes) / len(sizes))}
        return described


def make(folder: Path) -> Workloads:
    """The workloads in `folder`; made if they are not there, or are those of an older version."""
    stamp = folder / "made.json"
    wanted = {"seed": _SEED, "revision": _REVISION}
    if not (stamp.is_file() and json.loads(stamp.read_text()) == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        _make_all(folder)
        stamp.write_text(json.dumps(wanted))
    return Workloads(folder)


def _make_all(folder: Path) -> None:
    random = np.random.default_rng(_SEED)
    originals = [_original(name) for name in SOURCES]
    for number in range(WEB_IMAGES):
        picture = _varied(originals[number % len(originals)], random)
        _write(picture, folder / "web" / f"{number:04}.jpg", quality=85)
        if number < PNG_IMAGES:
            _write(picture, folder / "png" / f"{number:04}.png")
    for number in range(LARGE_IMAGES):
        largest = _enlarged(originals[number % len(originals)], MEGAPIXELS[-1], random)
        for megapixels in MEGAPIXELS:
            picture = largest if megapixels == MEGAPIXELS[-1] else largest.resize(_four_by_three(megapixels))
            _write(picture, folder / f"{megapixels}mp" / f"{number}.jpg", quality=90)
        collage = _collage(originals, MEGAPIXELS[-1], random)
        _write(collage, folder / f"collage{MEGAPIXELS[-1]}" / f"{number}.jpg", quality=90)


def _original(name: str) -> Image.Image:
    import skimage

    with Image.open(Path(skimage.__file__).parent / "data" / name) as opened:
        return opened.convert("RGB")


def _write(picture: Image.Image, file: Path, quality: int | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if quality is None:
        picture.save(file)
    else:
        picture.save(file, quality=quality)


def _varied(original: Image.Image, random: np.random.Generator) -> Image.Image:
    """A crop of a random part, 500 x 375 give or take a tenth, perhaps mirrored, a little lighter or darker."""
    width, height = (round(side * random.uniform(0.9, 1.1)) for side in WEB_SIZE)
    picture = original.resize((width, height), Image.Resampling.BICUBIC, box=_part(original, width / height, random))
    if random.random() < 0.5:
        picture = ImageOps.mirror(picture)
    return ImageEnhance.Brightness(picture).enhance(random.uniform(0.8, 1.2))


def _part(original: Image.Image, ratio: float, random: np.random.Generator) -> tuple[float, float, float, float]:
    """A box of a shape, 0.6 to 1 of the largest that fits, anywhere in a picture."""
    share = random.uniform(0.6, 1.0)
    width = min(original.width, original.height * ratio) * share
    height = width / ratio
    left, top = random.uniform(0, original.width - width), random.uniform(0, original.height - height)
    return left, top, left + width, top + height


def _four_by_three(megapixels: int) -> tuple[int, int]:
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    return width, round(width * 3 / 4)


def _enlarged(original: Image.Image, megapixels: int, random: np.random.Generator) -> Image.Image:
    """A photograph enlarged, sharpened and given the grain of a sensor."""
    size = _four_by_three(megapixels)
    picture = original.resize(size, Image.Resampling.LANCZOS, box=_part(original, 4 / 3, random))
    picture = picture.filter(ImageFilter.UnsharpMask(radius=4, percent=150))
    grain = random.normal(0, _GRAIN, (size[1], size[0], 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8))


def _collage(originals: list[Image.Image], megapixels: int, random: np.random.Generator) -> Image.Image:
    """A sheet full of photographs at their own size."""
    sheet = Image.new("RGB", _four_by_three(megapixels))
    for top in range(0, sheet.height, WEB_SIZE[1]):
        for left in range(0, sheet.width, WEB_SIZE[0]):
            original = originals[int(random.integers(len(originals)))]
            box = _part(original, WEB_SIZE[0] / WEB_SIZE[1], random)
            sheet.paste(original.resize(WEB_SIZE, Image.Resampling.BICUBIC, box=box), (left, top))
    return sheet

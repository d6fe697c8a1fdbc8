"""Spoils pictures as scanners, cameras, programs and people do: perspective, light, blur, noise, crops, JPEG."""

from __future__ import annotations

import io
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

_Floats = npt.NDArray[np.float32]
_PAPER = frozenset({"document", "receipt", "form"})
_GRAPHIC = frozenset({"chart", "diagram", "map", "logo", "drawing"})


def limited(picture: Image.Image, longest: int) -> Image.Image:
    """No side longer than this."""
    scale = longest / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(32, round(picture.width * scale)), max(32, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def table(random: Random, width: int, height: int) -> Image.Image:
    """What a photographed page lies on: a plain surface, wood, cloth, stone; uneven in its light."""
    noise = np.random.default_rng(random.randrange(1 << 30))
    base = np.array([random.randint(20, 230)] * 3, np.float32) + noise.normal(0, 18, 3).astype(np.float32)
    if random.random() < 0.5:
        base *= np.array([1.15, 0.9, 0.65], np.float32)  # wood, skin, cardboard
    grain_x, grain_y = random.choice(((4, 120), (120, 4), (20, 20), (3, 3), (60, 60)))
    small = noise.normal(0, 1, (max(2, height // grain_y), max(2, width // grain_x))).astype(np.float32)
    grain = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    surface = base + grain[..., None] * random.uniform(2, 22)
    return Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8))


def _coefficients(source: list[tuple[float, float]], target: list[tuple[float, float]]) -> list[float]:
    """Pillow's eight numbers of a perspective: they map a point of the target to one of the source."""
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(number) for number in np.linalg.solve(np.array(rows), np.array(values))]


def on_table(picture: Image.Image, random: Random, ground: Image.Image | None = None) -> Image.Image:
    """The picture as a sheet that somebody has photographed: turned, in perspective, with a shadow and uneven light."""
    picture = limited(picture, 900)
    margin = random.uniform(0.02, 0.3)
    width, height = (round(side * (1 + 2 * margin)) for side in picture.size)
    jitter = 0.09
    corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
    target = [
        (
            (margin + x + random.uniform(-jitter, jitter)) * picture.width,
            (margin + y + random.uniform(-jitter, jitter)) * picture.height,
        )
        for x, y in corners
    ]
    source = [(float(x * picture.width), float(y * picture.height)) for x, y in corners]
    numbers = _coefficients(source, target)
    placed = picture.transform((width, height), Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC)
    mask = Image.new("L", picture.size, 255).transform((width, height), Image.Transform.PERSPECTIVE, numbers)
    scene = ground.resize((width, height)) if ground else table(random, width, height)
    shadow = mask.filter(ImageFilter.GaussianBlur(random.uniform(4, 16)))
    scene = Image.composite(ImageEnhance.Brightness(scene).enhance(0.6), scene, shadow)
    scene.paste(placed, (0, 0), mask)
    return _lit(scene, random)


def _lit(picture: Image.Image, random: Random) -> Image.Image:
    """Uneven light and a tint."""
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0 : 1 : complex(0, height), 0 : 1 : complex(0, width)].astype(np.float32)
    slope = random.uniform(-0.45, 0.45) * (x - 0.5) + random.uniform(-0.45, 0.45) * (y - 0.5)
    bright = random.uniform(0.6, 1.05)
    tint = np.array([random.uniform(0.92, 1.08), random.uniform(0.95, 1.03), random.uniform(0.78, 1.08)], np.float32)
    return Image.fromarray(np.clip(pixels * (bright + slope)[..., None] * tint, 0, 255).astype(np.uint8))


def noisy(picture: Image.Image, random: Random, most: float) -> Image.Image:
    """Sensor noise, in grey or in colour."""
    pixels = np.asarray(picture, np.float32)
    noise = np.random.default_rng(random.randrange(1 << 30))
    channels = random.choice((1, 3))
    added = noise.normal(0, random.uniform(2, most), (*pixels.shape[:2], channels)).astype(np.float32)
    return Image.fromarray(np.clip(pixels + added, 0, 255).astype(np.uint8))


def scanned(picture: Image.Image, random: Random) -> Image.Image:
    """A page from a scanner: a little askew, grey or black and white perhaps, with dirt, a dark edge, a hole."""
    fill = random.choice(((255, 255, 255), (250, 248, 240), (20, 20, 20)))
    picture = picture.rotate(random.gauss(0, 1.6), Image.Resampling.BICUBIC, expand=True, fillcolor=fill)
    if random.random() < 0.4:
        picture = ImageOps.grayscale(picture).convert("RGB")
    if random.random() < 0.15:
        threshold = random.randint(110, 200)
        picture = ImageOps.grayscale(picture).point([255 * (value > threshold) for value in range(256)]).convert("RGB")
    if random.random() < 0.4:
        picture = ImageEnhance.Contrast(picture).enhance(random.uniform(0.6, 1.4))
    return noisy(picture, random, 9) if random.random() < 0.4 else picture


def cropped(picture: Image.Image, random: Random, least: float) -> Image.Image:
    """A part of the picture."""
    width, height = (round(side * random.uniform(least, 1)) for side in picture.size)
    left, top = random.randint(0, picture.width - width), random.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


def blurred(picture: Image.Image, random: Random, most: float) -> Image.Image:
    """Out of focus."""
    return picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, most)))


def jpeg(picture: Image.Image, random: Random) -> bytes:
    """The picture as a file: PNG sometimes, else JPEG of a random quality."""
    written = io.BytesIO()
    if random.random() < 0.25:
        picture.save(written, "PNG")
    else:
        picture.save(written, "JPEG", quality=random.randint(25, 95))
    return written.getvalue()


def spoilt(picture: Image.Image, kind: str, random: Random) -> bytes:
    """A file of the picture: as it is in a third of the cases, otherwise spoilt in ways that suit its kind."""
    if random.random() < 0.33:
        return jpeg(limited(picture, random.choice((400, 800, 1600))), random)
    picture = _captured(picture, kind, random)
    if random.random() < 0.35:
        picture = cropped(picture, random, 0.5 if kind != "logo" else 0.8)
    if random.random() < 0.12 and kind in _GRAPHIC:
        picture = ImageOps.expand(picture, random.randint(10, 120), random.choice(("white", "black", "#eee")))
    picture = limited(picture, random.choice((300, 500, 800, 1400)))
    if random.random() < 0.4:
        picture = blurred(picture, random, 1.8)
    if random.random() < 0.3:
        picture = noisy(picture, random, 16)
    if random.random() < 0.2:
        picture = ImageEnhance.Color(picture).enhance(random.uniform(0, 1.5))
    return jpeg(picture, random)


def _captured(picture: Image.Image, kind: str, random: Random) -> Image.Image:
    """Photographed or scanned: paper in nine cases of ten, anything else in two."""
    way = random.random()
    photographed, either = (0.45, 0.9) if kind in _PAPER else (0.1, 0.2)
    if way < photographed:
        return on_table(picture, random)
    return scanned(picture, random) if way < either else picture

"""The counterexamples: crops of photographs from Debian's packages, some with writing, frames and other oddities.

`fetch_photographs.sh` unpacks the packages. A fifth of the photographs is kept for the test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from kind_head import spoil
from kind_head.draft import Draft

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif"})
_FONTS = ("LiberationSans-Bold", "DejaVuSans", "DejaVuSerif-Bold", "LiberationSerif-Regular", "DejaVuSans-Bold")


def pictures_below(folder: Path) -> list[Path]:
    """The pictures in a folder and below, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


def of_test(paths: list[Path], *, test: bool) -> list[Path]:
    """Those for the test, or the others; a digest of the name decides."""
    return [path for path in paths if _is_test(path) == test]


def _is_test(path: Path) -> bool:
    return hashlib.sha256(path.name.encode()).digest()[0] < 51


def negatives(whole: list[Path], objects: list[Path], count: int, seed: str) -> Iterator[tuple[str, bytes]]:
    """Photographs: what was done to each, and its file. `whole` are scenes, `objects` are cut out and transparent."""
    for number in range(count):
        draft = Draft(f"{seed} photograph {number}")
        random = draft.random
        try:
            picture = _object(whole, objects, random) if random.random() < 0.3 else _scene(whole, random)
        except OSError:
            continue  # a file that is no picture after all
        yield _varied(picture, draft)


def _opened(path: Path, random: Random) -> Image.Image:
    with Image.open(path) as opened:
        if opened.format == "JPEG":
            opened.draft("RGB", (1600, 1600))
        picture = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    picture.thumbnail((1600, 1600))
    return ImageOps.mirror(picture) if random.random() < 0.5 else picture


def _scene(paths: list[Path], random: Random) -> Image.Image:
    picture = _opened(random.choice(paths), random).convert("RGB")
    return spoil.cropped(picture, random, random.choice((0.25, 0.5, 0.85)))


def _object(whole: list[Path], objects: list[Path], random: Random) -> Image.Image:
    """A thing before a surface, a scene, or the white of a shop's catalogue."""
    thing = _opened(random.choice(objects), random).convert("RGBA")
    scale = random.randint(220, 520) / max(thing.size)
    thing = thing.resize(
        (max(8, round(thing.width * scale)), max(8, round(thing.height * scale))), Image.Resampling.BICUBIC
    )
    side = round(max(thing.size) * random.uniform(1.0, 1.7))
    size = (side, round(side * random.choice((1, 0.75, 1.33))))
    way = random.random()
    if way < 0.3:
        grey = random.randint(215, 255)
        ground = Image.new("RGB", size, (grey, grey, grey))
    elif way < 0.65:
        ground = spoil.table(random, *size)
    else:
        ground = _scene(whole, random).resize(size).filter(ImageFilter.GaussianBlur(random.uniform(0, 6)))
    shadow = thing.getchannel("A").filter(ImageFilter.GaussianBlur(8)).point(lambda value: value // 3)
    place = ((size[0] - thing.width) // 2, (size[1] - thing.height) // 2)
    ground.paste((0, 0, 0), (place[0] + 8, place[1] + 10), shadow)
    ground.paste(thing, place, thing)
    return ground


def _written_on(picture: Image.Image, draft: Draft) -> Image.Image:
    """Writing in a photograph: a caption, a date, a watermark, a sign, a label."""
    random = draft.random
    drawing = ImageDraw.Draw(picture, "RGBA")
    for _ in range(random.randint(1, 3)):
        size = max(9, round(picture.height * random.uniform(0.03, 0.13)))
        font = ImageFont.truetype(f"{random.choice(_FONTS)}.ttf", size)
        words = random.choice((draft.brand(), draft.date(), draft.title(1, 4), draft.person()))
        x, y = random.randint(0, max(1, picture.width * 2 // 3)), random.randint(0, max(1, picture.height - size))
        colour = random.choice(((255, 255, 255), (0, 0, 0), (255, 200, 0), (220, 30, 30)))
        if random.random() < 0.45:  # a sign
            box = drawing.textbbox((x, y), words, font)
            ground = random.choice(((255, 255, 255), (20, 60, 160), (190, 20, 20), (250, 210, 40), (10, 90, 50)))
            colour = (0, 0, 0) if sum(ground) > 450 else (255, 255, 255)
            drawing.rectangle(
                (box[0] - size // 3, box[1] - size // 3, box[2] + size // 3, box[3] + size // 3), fill=ground
            )
        drawing.text((x, y), words, (*colour, random.choice((255, 255, 130))), font)
    return picture


def _varied(picture: Image.Image, draft: Draft) -> tuple[str, bytes]:
    """What was done to it, in a word, and the file."""
    random = draft.random
    done = "plain"
    if random.random() < 0.22:
        picture, done = _written_on(picture, draft), "written"
    if random.random() < 0.15:
        picture, done = ImageOps.grayscale(picture).convert("RGB"), f"{done}-grey"
    elif random.random() < 0.06:
        picture = ImageOps.colorize(ImageOps.grayscale(picture), "#2b1a0c", "#f3e3c4")
    picture = ImageEnhance.Brightness(picture).enhance(random.uniform(0.55, 1.45))
    picture = ImageEnhance.Contrast(picture).enhance(random.uniform(0.6, 1.4))
    if random.random() < 0.08:
        picture = ImageOps.expand(picture, random.randint(5, 60), random.choice(("white", "black")))
    if random.random() < 0.05:
        picture = spoil.on_table(picture, random)
    picture = spoil.limited(picture, random.choice((200, 300, 500, 1000)))
    if random.random() < 0.35:
        picture = spoil.blurred(picture, random, 2.5)
    if random.random() < 0.25:
        picture = spoil.noisy(picture, random, 20)
    return done, spoil.jpeg(picture, random)

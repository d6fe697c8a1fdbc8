"""Perceptual hashes of real pictures: near for what looks the same, far or none for what does not."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from worker.children import perceptual_hash, rendering
from worker.images.perceptual_hash import PerceptualHash
from worker.tagging.hash_index import MAXIMUM_DISTANCE
from worker.tagging.near_duplicates import Looks


def looks(image: Image.Image, orientation: int = 1) -> Looks | None:
    """What an image looks like, drawn as a decoder draws it."""
    found = perceptual_hash.of(rendering.square(image, orientation, perceptual_hash.SIDE))
    width, height = image.size if orientation == 1 else image.size[::-1]
    return None if found is None else Looks(found, width, height)


def same(one: Looks | None, other: Looks | None) -> bool:
    assert one is not None
    return other is not None and one.hash.distance(other.hash) <= MAXIMUM_DISTANCE and one.like(other)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return Image.open(written)


def resized(image: Image.Image, scale: float) -> Image.Image:
    width, height = image.size
    return image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)


def trimmed(image: Image.Image) -> Image.Image:
    """One per cent less on each side."""
    width, height = image.size
    return image.crop((width // 100, height // 100, width - width // 100, height - height // 100))


@pytest.fixture(scope="module")
def pictures(images100: Path) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in sorted(images100.glob("*.JPEG"))]


@pytest.fixture(scope="module")
def known(photographs: dict[str, Path]) -> dict[str, Image.Image]:
    return {name: Image.open(file).convert("RGB") for name, file in photographs.items()}


def page(seed: int, lines: int) -> Image.Image:
    """A letter: a heading, an address, and so many lines of text."""
    words = random.Random(seed)
    image = Image.new("RGB", (620, 877), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    draw.text((60, 50), "Acme Limited", "navy", ImageFont.load_default(24))
    for line in range(lines):
        text = " ".join("".join(words.choices("abcdefghiklmnorstu", k=words.randint(2, 9))) for _ in range(12))
        draw.text((60, 280 + 19 * line), text[:70], "black", font)
    return image


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda image: as_jpeg(image, 50), 97),
        (lambda image: as_jpeg(resized(image, 0.5), 75), 97),
        (lambda image: as_jpeg(resized(image, 0.25), 75), 95),
        (lambda image: resized(image, 2), 99),
        (lambda image: ImageEnhance.Brightness(image).enhance(1.1), 80),
        (trimmed, 65),
    ],
    ids=["quality 50", "half", "a quarter", "double", "brighter", "trimmed"],
)
def test_a_photograph_is_found_again(
    pictures: list[Image.Image], change: Callable[[Image.Image], Image.Image], found: int
) -> None:
    assert sum(same(looks(image), looks(change(image))) for image in pictures) >= found


def test_no_photograph_is_taken_for_another(pictures: list[Image.Image]) -> None:
    hashes = [each.hash for image in pictures if (each := looks(image)) is not None]
    assert len(hashes) == len(pictures)
    assert min(one.distance(other) for one, other in itertools.combinations(hashes, 2)) > 4 * MAXIMUM_DISTANCE


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_is_blank_has_no_hash(mode: str) -> None:
    for colour in ("white", "black", "red", "#87a3c0"):
        assert looks(Image.new("RGB", (300, 200), colour).convert(mode)) is None
        assert looks(as_jpeg(Image.new("RGB", (300, 200), colour), 30)) is None
    assert looks(Image.linear_gradient("L").resize((300, 200))) is None
    assert looks(Image.radial_gradient("L").resize((300, 200))) is None
    assert looks(Image.effect_noise((800, 600), 20)) is None


def test_what_is_transparent_counts_as_white() -> None:
    assert looks(Image.new("RGBA", (300, 200), (200, 30, 30, 0))) is None


def test_pages_that_look_alike_are_not_the_same_and_a_copy_of_a_page_is() -> None:
    pages = [page(seed, lines) for seed, lines in enumerate([22] * 20 + [20] * 10 + [24] * 10)]
    all_looks = [looks(each) for each in pages]
    near = sum(
        one.hash.distance(other.hash) <= MAXIMUM_DISTANCE
        for one, other in itertools.combinations((each for each in all_looks if each), 2)
    )
    assert near > 0, "the hash alone is enough for these pages, so they show nothing"
    assert not any(same(one, other) for one, other in itertools.combinations(all_looks, 2))
    assert sum(same(each, looks(as_jpeg(image, 60))) for each, image in zip(all_looks, pages, strict=True)) >= 38


def test_a_picture_on_its_side_is_the_same_as_the_upright_one(known: dict[str, Image.Image]) -> None:
    # Orientation 6: to be turned clockwise by 90 degrees to be shown.
    stored = known["chelsea"].transpose(Image.Transpose.ROTATE_90)
    assert same(looks(known["chelsea"]), looks(stored, orientation=6))
    assert not same(looks(known["chelsea"]), looks(stored))


def test_another_shape_or_another_colour_is_not_the_same(known: dict[str, Image.Image]) -> None:
    picture = known["coffee"]
    assert not same(looks(picture), looks(picture.resize((picture.width, picture.height * 9 // 10))))
    red, green, blue = picture.split()
    assert not same(looks(picture), looks(Image.merge("RGB", (blue, green, red))))
    assert not same(looks(picture), looks(ImageEnhance.Color(picture).enhance(0)))


def test_the_distance_is_the_number_of_bits_that_differ() -> None:
    one = PerceptualHash(0b1011, None, (0, 0, 0))
    assert one.distance(PerceptualHash(0b0010, None, (0, 0, 0))) == 2
    assert one.distance(PerceptualHash((1 << 64) - 1, None, (0, 0, 0))) == 61

"""What decoders see of every format, depth, colour, byte order, alpha and orientation, judged by two other decoders.

Each file is made with what it shows known. Autotag must see that within a few grey levels, and so must libvips or
ImageMagick: otherwise the file would only show what its maker and Autotag agree on. The few cases in which both see
something else have their reason written beside them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pillow_heif
import pytest
import pytest_asyncio
from PIL import Image, ImageChops, ImageStat

from tests.support.decoding import decode
from tests.support.picture_matrix import FAMILIES, SIZE, Specimen
from tests.support.second_decoders import imagemagick, libvips
from worker.images.requests import Fit, Interpolation, PixelRecipe
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool

WITHIN = 4.0
"""Mean difference over all pixels and channels, of 255: what compression and colour spaces may cost."""

ALIKE = 6.0
"""The same for two decoders, which need not have the same white."""

SQUASH = PixelRecipe(64, Fit.SQUASH, 0, Interpolation.BICUBIC)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoders() -> AsyncIterator[DecoderPool]:
    pillow_heif.register_heif_opener()  # the specimens are written with it
    async with DecoderPool(DecoderOptions(timeout_s=20)) as pool:
        yield pool


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def seen(pool: DecoderPool, specimen: Specimen) -> tuple[Image.Image, tuple[int, int]]:
    decoded, pixels = await decode(pool, specimen.data, SQUASH, specimen.name)
    return pixels, (decoded.facts.width, decoded.facts.height)


def difference(pixels: Image.Image, other: Image.Image | None) -> float:
    """How far what Autotag sees is from another picture; infinitely far from none."""
    if other is None:
        return float("inf")
    alike = other.resize(pixels.size, Image.Resampling.BICUBIC)
    return sum(ImageStat.Stat(ImageChops.difference(pixels, alike)).mean) / 3


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_layout_is_seen_as_it_is_and_as_another_decoder_sees_it(
    decoders: DecoderPool, family: str, tmp_path: Path
) -> None:
    wrong: list[str] = []
    number = 0
    for specimen in FAMILIES[family]():
        number += 1
        pixels, size = await seen(decoders, specimen)
        off = difference(pixels, specimen.shows)
        if off > WITHIN:
            wrong.append(f"{specimen.name}: {off:.1f} from what it shows")
        if specimen.shows.size == SIZE and "tiles" not in specimen.name and size != SIZE:
            wrong.append(f"{specimen.name}: {size} instead of {SIZE}")
        file = tmp_path / f"{number}.{specimen.name.split()[0].lower()}"
        file.write_bytes(specimen.data)
        others = [difference(pixels, decoder(file)) for decoder in (libvips, imagemagick)]
        agreed = min(others) <= ALIKE
        if agreed == bool(specimen.disputed):
            wrong.append(f"{specimen.name}: {others} from libvips and ImageMagick, {specimen.disputed!r}")
    assert wrong == []
    assert number >= 12

"""What the real decoder makes of files: the picture that it sees, its refusals, and that damage does not kill it."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Mapping

import pytest
from PIL import Image

from worker.errors import CannotBeDone
from worker.images.content import Content
from worker.images.requests import PixelRecipe
from worker.supervision.decoder_pool import Decoded, DecoderPool


async def decode(
    pool: DecoderPool, data: bytes, recipe: PixelRecipe, origin: str = "path photo.jpg"
) -> tuple[Decoded, Image.Image]:
    """The answer, whose pixels are closed, and the picture."""
    with Content.from_bytes(data, origin) as content:
        decoded = await pool.decode(content, (recipe,), "asset-1")
    assert decoded.pixels_fd is not None
    pixels = os.pread(decoded.pixels_fd, 10 * recipe.size**2, 0)
    os.close(decoded.pixels_fd)
    assert len(pixels) == recipe.size**2 * 3
    return decoded, Image.frombytes("RGB", (recipe.size, recipe.size), pixels)


async def refusal(pool: DecoderPool, data: bytes, recipe: PixelRecipe) -> CannotBeDone:
    """Why a file is refused."""
    with pytest.raises(CannotBeDone) as caught:
        await decode(pool, data, recipe)
    assert str(caught.value).startswith("asset-1 (path photo.jpg): ")
    return caught.value


async def survives_damage(
    pool: DecoderPool, files: Mapping[str, bytes], recipe: PixelRecipe, *, copies: int, places: int, within: int
) -> None:
    """Copies of each file, with other bytes at some places of its beginning, are decoded or refused as images.

    All of them by the children that ran before. Files and seeds give the same damage each time.
    """
    before = [child.pid for child in pool.states()]
    for name, data in files.items():
        for seed in range(copies):
            damaged = bytearray(data)
            for place in range(places):
                spot = zlib.crc32(f"{name}{seed}{place}".encode())
                damaged[spot % min(len(damaged), within)] = spot >> 24
            with Content.from_bytes(bytes(damaged), "body") as content:
                [answer] = await asyncio.gather(pool.decode(content, (recipe,), "asset-1"), return_exceptions=True)
            if isinstance(answer, Decoded):
                os.close(answer.pixels_fd or -1)
            else:
                assert isinstance(answer, CannotBeDone)
                assert answer.reason.startswith("image_")
                assert answer.reason != "image_killed_decoder", str(answer)
    assert [child.pid for child in pool.states()] == before

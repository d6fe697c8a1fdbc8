"""The real decoder on real bytes: every format, unusual pictures and kinds of damage, each with its reason code."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import struct
import sys
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image, ImageChops, ImageDraw, ImageStat

from tests.support import decoding
from tests.support.bombs import jpeg_of_many_scans
from tests.support.children import NoticeRecorder
from tests.support.pictures import FROM_UPRIGHT, written
from worker.errors import CannotBeDone
from worker.images.content import Content
from worker.images.requests import Fit, Interpolation, JpegLimits, PixelRecipe
from worker.supervision.decoder_pool import Decoded, DecoderOptions, DecoderPool
from worker.supervision.lifecycle import BecameReady, Crashed

SIZE = 96
CROP = PixelRecipe(SIZE, Fit.CROP, 12, Interpolation.BICUBIC)
SQUASH = PixelRecipe(SIZE, Fit.SQUASH, 0, Interpolation.BILINEAR)
MAXIMUM_PIXELS = 4_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoders() -> AsyncIterator[DecoderPool]:
    async with DecoderPool(DecoderOptions(maximum_pixels=MAXIMUM_PIXELS, maximum_bytes=20 << 20, timeout_s=10)) as pool:
        yield pool


pytestmark = pytest.mark.asyncio(loop_scope="module")


def scene(width: int = 300, height: int = 200) -> Image.Image:
    """A picture in which every corner differs."""
    image = Image.new("RGB", (width, height), (90, 120, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((width * 0.3, height * 0.2, width * 0.45, height * 0.5), fill=(220, 40, 30))
    draw.rectangle((width * 0.5, height * 0.5, width * 0.7, height * 0.6), fill=(20, 200, 60))
    draw.ellipse((width * 0.35, height * 0.6, width * 0.45, height * 0.8), fill=(240, 240, 20))
    return image


async def decode(pool: DecoderPool, data: bytes, recipe: PixelRecipe = CROP) -> tuple[Decoded, Image.Image]:
    return await decoding.decode(pool, data, recipe)


async def refusal(pool: DecoderPool, data: bytes) -> CannotBeDone:
    return await decoding.refusal(pool, data, CROP)


def wanted(image: Image.Image, recipe: PixelRecipe = CROP) -> Image.Image:
    """The expected pixels, computed in the simplest way."""
    filters = {Interpolation.BICUBIC: Image.Resampling.BICUBIC, Interpolation.BILINEAR: Image.Resampling.BILINEAR}
    return image.convert("RGB").resize((recipe.size,) * 2, filters[recipe.interpolation], box=recipe.box(*image.size))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference over all pixels and channels, of 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def mean(image: Image.Image) -> list[int]:
    return [round(value) for value in ImageStat.Stat(image).mean]


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG", "MPO", "ICO"])
@pytest.mark.parametrize("recipe", [CROP, SQUASH])
async def test_every_format_gives_the_picture_and_its_facts(
    decoders: DecoderPool, format_name: str, recipe: PixelRecipe
) -> None:
    image = scene(256, 160)
    options: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 95},
        "ICO": {"sizes": [(256, 160)]},
    }
    data = written(image, format_name, **options.get(format_name, {}))
    decoded, pixels = await decode(decoders, data, recipe)
    assert decoded.facts.format == {"MPO": "JPEG"}.get(format_name, format_name)
    assert (decoded.facts.width, decoded.facts.height) == (256, 160)
    assert decoded.facts.sha256 == hashlib.sha256(data).hexdigest()
    assert difference(pixels, wanted(image, recipe)) < (3.0 if format_name in ("JPEG", "MPO", "GIF") else 0.01)


async def test_facts_alone_need_no_recipe(decoders: DecoderPool) -> None:
    with Content.from_bytes(written(scene(), "PNG"), "body") as content:
        decoded = await decoders.decode(content, (), "asset-1")
    assert decoded.pixels_fd is None
    assert (decoded.facts.format, decoded.facts.width, decoded.facts.height) == ("PNG", 300, 200)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP"])
async def test_pictures_are_turned_upright(decoders: DecoderPool, orientation: int, format_name: str) -> None:
    upright = scene()
    turn = FROM_UPRIGHT[orientation]
    stored = upright.transpose(turn) if turn is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
    data = written(stored, format_name, exif=exif, **options.get(format_name, {}))
    decoded, pixels = await decode(decoders, data)
    assert (decoded.facts.width, decoded.facts.height) == (300, 200)
    assert difference(pixels, wanted(upright)) < (2.0 if format_name == "JPEG" else 0.05)
    with Content.from_bytes(data, "body") as content:
        shrunk = Image.open(io.BytesIO(await decoders.shrink(content, JpegLimits(1 << 20, 150, 150), "asset-1")))
        facts = await decoders.inspect(content, "asset-1")
    assert (facts.width, facts.height) == (300, 200)
    assert shrunk.size == (150, 100)
    assert difference(shrunk, upright.resize((150, 100), Image.Resampling.LANCZOS)) < 4.0


async def test_an_invalid_orientation_counts_as_upright(decoders: DecoderPool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    _, pixels = await decode(decoders, written(scene(), "PNG", exif=exif))
    assert difference(pixels, wanted(scene())) < 0.01
    broken = written(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    await decode(decoders, broken)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (2000, 1), (2, 3)])
async def test_the_smallest_and_narrowest_pictures_work(decoders: DecoderPool, size: tuple[int, int]) -> None:
    decoded, pixels = await decode(decoders, written(Image.new("RGB", size, (10, 200, 30)), "PNG"))
    assert (decoded.facts.width, decoded.facts.height) == size
    assert mean(pixels) == [10, 200, 30]


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("L", 128, [128, 128, 128]),
        ("1", 1, [255, 255, 255]),
        ("LA", (0, 128), [127, 127, 127]),
        ("RGBA", (255, 0, 0, 0), [255, 255, 255]),
        ("RGBA", (255, 0, 0, 128), [255, 127, 127]),
        ("I;16", 32768, [127, 127, 127]),
        ("I;16", 256, [0, 0, 0]),
    ],
)
async def test_every_mode_of_a_png_becomes_rgb_on_white(
    decoders: DecoderPool, mode: str, colour: Any, rgb: list[int]
) -> None:
    _, pixels = await decode(decoders, written(Image.new(mode, (120, 120), colour), "PNG"))
    assert all(abs(found - right) <= 1 for found, right in zip(mean(pixels), rgb, strict=True)), mean(pixels)


async def test_a_sixteen_bit_grey_gradient_keeps_its_shades(decoders: DecoderPool) -> None:
    gradient = Image.linear_gradient("L")
    deep = Image.new("I;16", gradient.size)
    deep.frombytes(b"".join(bytes((value, value)) for value in gradient.tobytes()))
    for format_name in ("PNG", "TIFF"):
        _, pixels = await decode(decoders, written(deep, format_name))
        assert difference(pixels, wanted(gradient)) < 2.0


async def test_a_sixteen_bit_colour_png_is_read(decoders: DecoderPool) -> None:
    _, pixels = await decode(
        decoders, png(64, 64, depth=16, colour_type=2, row=struct.pack(">HHH", 65535, 32768, 0) * 64)
    )
    assert mean(pixels) == [255, 128, 0]


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [("F", 0.5, 127), ("F", 200.0, 200), ("I", 40000, 155), ("I", 128, 128), ("F", -3.0, 0)],
)
async def test_deep_and_fractional_tiffs_are_scaled_not_clipped(
    decoders: DecoderPool, mode: str, value: float, grey: int
) -> None:
    _, pixels = await decode(decoders, written(Image.new(mode, (120, 120), value), "TIFF"))
    assert abs(mean(pixels)[0] - grey) <= 1, mean(pixels)


async def test_a_fractional_tiff_of_nothing_but_nan_is_refused(decoders: DecoderPool) -> None:
    error = await refusal(decoders, written(Image.new("F", (120, 120), float("inf")), "TIFF"))
    assert error.reason == "image_corrupt"


async def test_a_palette_png_with_a_transparent_colour_is_rendered_on_white(decoders: DecoderPool) -> None:
    image = Image.new("P", (120, 120), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    _, pixels = await decode(decoders, written(image, "PNG"))
    assert mean(pixels) == [200, 10, 10]
    _, pixels = await decode(decoders, written(image, "PNG", transparency=1))
    assert mean(pixels) == [255, 255, 255]
    _, pixels = await decode(decoders, written(image, "GIF", transparency=1))
    assert mean(pixels) == [255, 255, 255]


async def test_an_rgb_png_with_a_transparent_colour_is_rendered_on_white(decoders: DecoderPool) -> None:
    image = Image.new("RGB", (120, 120), (1, 2, 3))
    _, pixels = await decode(decoders, written(image, "PNG", transparency=(1, 2, 3)))
    assert mean(pixels) == [255, 255, 255]


async def test_cmyk_jpegs_have_their_colours(decoders: DecoderPool) -> None:
    # Pillow writes CMYK as Adobe does, inverted and marked so.
    _, pixels = await decode(decoders, written(Image.new("CMYK", (120, 120), (0, 255, 255, 0)), "JPEG"))
    assert difference(pixels, Image.new("RGB", pixels.size, (255, 0, 0))) < 3
    _, pixels = await decode(decoders, written(Image.new("CMYK", (120, 120), (0, 0, 0, 255)), "TIFF"))
    assert mean(pixels) == [0, 0, 0]


async def test_lab_tiffs_have_their_colours(decoders: DecoderPool) -> None:
    _, pixels = await decode(decoders, written(Image.new("LAB", (120, 120), (255, 128, 128)), "TIFF"))
    assert min(mean(pixels)) > 245


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
async def test_only_the_first_frame_is_used(decoders: DecoderPool, format_name: str) -> None:
    red, blue = Image.new("RGB", (120, 120), (250, 0, 0)), Image.new("RGB", (120, 120), (0, 0, 250))
    data = written(red, format_name, save_all=True, append_images=[blue] * 20)
    _, pixels = await decode(decoders, data)
    assert difference(pixels, Image.new("RGB", pixels.size, (250, 0, 0))) < 4


async def test_a_large_jpeg_is_decoded_small_and_looks_the_same(decoders: DecoderPool) -> None:
    large = scene(2400, 1600)
    decoded, pixels = await decode(decoders, written(large, "JPEG", quality=92))
    assert (decoded.facts.width, decoded.facts.height) == (2400, 1600)
    assert difference(pixels, wanted(large)) < 1.5


@pytest.mark.parametrize(
    ("data", "reason", "expected"),
    [
        (b"", "image_empty", "empty"),
        (b"just a letter, not an image\n", "image_unrecognised", "text/plain"),
        (b"<!DOCTYPE html><html>not found</html>", "image_unrecognised", "text/html"),
        (b"%PDF-1.7\n", "image_unrecognised", "application/pdf"),
        (bytes(range(256)) * 4, "image_unrecognised", "no known kind"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "image_truncated", "too early"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_format_refused", "image/svg+xml"),
        (b"8BPS\0\x01" + b"\0" * 60, "image_format_refused", "photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image_format_refused", "image/x-eps"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "image_corrupt", "header"),
        (b"GIF89a", "image_corrupt", "header"),
    ],
)
async def test_what_is_no_usable_image_is_named(decoders: DecoderPool, data: bytes, reason: str, expected: str) -> None:
    error = await refusal(decoders, data)
    assert error.reason == reason
    assert expected in str(error)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
async def test_a_truncated_file_is_refused_and_never_decoded_in_part(
    decoders: DecoderPool, format_name: str, kept: float
) -> None:
    noise = Image.effect_noise((400, 300), 90).convert("RGB")
    data = written(noise, format_name)
    error = await refusal(decoders, data[: int(len(data) * kept)])
    if format_name in ("JPEG", "PNG", "BMP"):
        assert error.reason == "image_truncated", error
    else:
        assert error.reason in ("image_truncated", "image_corrupt"), error


async def test_a_decompression_bomb_is_refused_from_its_header(decoders: DecoderPool) -> None:
    bomb = png(60_000, 60_000, depth=1, colour_type=0, row=b"\0" * 7500, rows=2000)
    error = await refusal(decoders, bomb)
    assert error.reason == "image_too_large_pixels"
    data = written(Image.new("1", (2001, 2000)), "PNG")
    assert (await refusal(decoders, data)).reason == "image_too_large_pixels"
    await decode(decoders, written(Image.new("1", (2000, 2000)), "PNG"))


async def test_an_icon_that_hides_a_large_png_is_refused(decoders: DecoderPool) -> None:
    inside = written(Image.new("1", (5000, 5000)), "PNG")
    header = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22)
    assert (await refusal(decoders, header + inside)).reason == "image_too_large_pixels"


async def test_damage_at_random_never_kills_the_decoder(decoders: DecoderPool) -> None:
    formats = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "ICO", "MPO")
    files = {each: written(scene(64, 48), each) for each in formats}
    await decoding.survives_damage(decoders, files, CROP, copies=60, places=8, within=sys.maxsize)


async def test_pixels_keep_their_length_whatever_a_decoder_does(decoders: DecoderPool) -> None:
    with Content.from_bytes(written(scene(), "PNG"), "body") as content:
        decoded = await decoders.decode(content, (CROP,), "asset-1")
    assert decoded.pixels_fd is not None
    for length in (0, CROP.size * CROP.size * 3 + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(decoded.pixels_fd, length)
    with pytest.raises(PermissionError):
        os.pwrite(decoded.pixels_fd, b"x", CROP.size * CROP.size * 3)
    os.close(decoded.pixels_fd)


async def test_one_file_may_be_read_by_two_decoders_at_once() -> None:
    data = written(Image.effect_noise((1500, 1000), 80).convert("RGB"), "PNG")
    async with DecoderPool(DecoderOptions(children=2)) as pool:
        with Content.from_bytes(data, "body") as content:
            facts = await asyncio.gather(*(pool.decode(content, (SQUASH,), "asset-1") for _ in range(8)))
    assert len({decoded.facts.sha256 for decoded in facts}) == 1
    for decoded in facts:
        os.close(decoded.pixels_fd or -1)


async def test_an_image_that_needs_too_much_memory_is_refused_and_the_decoder_lives() -> None:
    options = DecoderOptions(maximum_memory_bytes=200 << 20, maximum_pixels=200_000_000)
    async with DecoderPool(options) as pool:
        await pool.wait_ready()
        before = [child.pid for child in pool.states()]
        error = await refusal(pool, png(8000, 8000, depth=8, colour_type=2, row=b"\0" * 24_000))
        assert error.reason == "image_too_large_memory"
        await decode(pool, written(scene(), "PNG"))
        assert [child.pid for child in pool.states()] == before


async def test_an_image_that_takes_too_much_processor_time_fails_by_name() -> None:
    async with DecoderPool(DecoderOptions(maximum_cpu_s=1, maximum_pixels=100_000_000, timeout_s=30)) as pool:
        # Quick to decode, but no quality makes a JPEG of it as small as requested: each attempt takes half a second.
        slow = png(9000, 9000, depth=1, colour_type=3, row=b"\0" * 1125)
        with Content.from_bytes(slow, "body") as content, pytest.raises(CannotBeDone) as caught:
            await pool.shrink(content, JpegLimits(1000, 9000, 9000), "asset-1")
        assert caught.value.reason == "image_too_slow"
        assert "SIGXCPU" in str(caught.value)


async def test_what_takes_long_by_its_structure_costs_the_others_no_time_and_kills_one_decoder() -> None:
    recorder = NoticeRecorder()
    async with DecoderPool(DecoderOptions(maximum_cpu_s=2), observe=recorder) as pool:
        await pool.wait_ready()
        slow = asyncio.create_task(refusal(pool, jpeg_of_many_scans()))
        for _ in range(3):
            await decode(pool, written(scene(), "JPEG"))
        assert not slow.done()
        assert (await slow).reason == "image_too_slow"
    assert [(name, crash.cause.reason) for name, crash in recorder.notices if isinstance(crash, Crashed)] == [
        ("decoder-slow-1", "killed_by_sigxcpu")
    ]


async def test_what_takes_long_unforeseen_is_done_all_the_same() -> None:
    recorder = NoticeRecorder()
    async with DecoderPool(DecoderOptions(first_cpu_s=0.02), observe=recorder) as pool:
        facts, _ = await decode(pool, written(Image.effect_noise((3000, 2000), 80).convert("RGB"), "PNG"))
        assert (facts.facts.width, facts.facts.height) == (3000, 2000)
    began = [name for name, notice in recorder.notices if isinstance(notice, BecameReady)]
    assert began == ["decoder-1", "decoder-slow-1"]
    assert recorder.crashes() == [], "the decoder lives, and only the image's process has ended"


async def test_large_images_at_once_keep_to_the_memory_that_there_is_for_all() -> None:
    shared_bytes = 150 << 20
    written_webp = written(Image.new("RGBA", (3500, 3000), (200, 10, 10, 128)), "WEBP", quality=50, method=0)
    async with DecoderPool(DecoderOptions(children=3, shared_memory_bytes=lambda: shared_bytes)) as pool:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, sum(state.resident_bytes for state in pool.states()))
                await asyncio.sleep(0.002)

        await asyncio.gather(*(decode(pool, written(scene(), "JPEG")) for _ in range(6)))
        idle = sum(state.resident_bytes for state in pool.states())
        watching = asyncio.create_task(watch())
        for decoded, _ in await asyncio.gather(*(decode(pool, written_webp) for _ in range(6))):
            assert decoded.facts.format == "WEBP"
        watching.cancel()
    assert most - idle < 128 * 2 * (1 << 20) + shared_bytes, "one large image at a time"


async def test_processor_time_is_limited_for_every_image_separately() -> None:
    async with DecoderPool(DecoderOptions(maximum_cpu_s=1)) as pool:
        data = written(Image.effect_noise((3000, 2000), 80).convert("RGB"), "PNG", compress_level=1)
        await pool.wait_ready()
        before = [child.pid for child in pool.states()]
        for _ in range(10):
            await decode(pool, data)
        assert [child.pid for child in pool.states()] == before


class TestShrinking:
    pytestmark = pytest.mark.asyncio(loop_scope="module")

    async def shrink(self, pool: DecoderPool, image: bytes, limits: JpegLimits) -> Image.Image:
        with Content.from_bytes(image, "body") as content:
            data = await pool.shrink(content, limits, "asset-1")
        assert len(data) <= limits.maximum_bytes
        shrunk = Image.open(io.BytesIO(data))
        assert shrunk.format == "JPEG"
        assert not shrunk.getexif()
        assert shrunk.width <= limits.maximum_width
        assert shrunk.height <= limits.maximum_height
        return shrunk

    async def test_a_picture_within_the_limits_keeps_its_size(self, decoders: DecoderPool) -> None:
        shrunk = await self.shrink(decoders, written(scene(), "PNG"), JpegLimits(1 << 20, 1024, 1024))
        assert shrunk.size == (300, 200)
        assert difference(shrunk, scene()) < 3

    async def test_a_large_one_is_made_to_fit(self, decoders: DecoderPool) -> None:
        data = written(scene(2000, 1500), "JPEG")
        assert (await self.shrink(decoders, data, JpegLimits(1 << 20, 800, 800))).size == (800, 600)

    async def test_bytes_are_saved_by_quality_and_then_by_size(self, decoders: DecoderPool) -> None:
        noise = written(Image.effect_noise((1000, 800), 120).convert("RGB"), "PNG")
        full = await self.shrink(decoders, noise, JpegLimits(700_000, 2000, 2000))
        assert full.size == (1000, 800)
        small = await self.shrink(decoders, noise, JpegLimits(60_000, 2000, 2000))
        assert small.width < 1000

    @pytest.mark.parametrize(("size", "shown"), [((10, 10), (50, 50)), ((20, 40), (50, 100)), ((1, 4000), (50, 1000))])
    async def test_a_tiny_one_is_enlarged_or_given_a_border(
        self, decoders: DecoderPool, size: tuple[int, int], shown: tuple[int, int]
    ) -> None:
        data = written(Image.new("RGB", size, "red"), "PNG")
        assert (await self.shrink(decoders, data, JpegLimits(1 << 20, 1000, 1000, 50, 50))).size == shown

    async def test_what_cannot_be_made_small_enough_is_refused(self, decoders: DecoderPool) -> None:
        noise = written(Image.effect_noise((1000, 800), 120).convert("RGB"), "PNG")
        with pytest.raises(CannotBeDone) as caught:
            await self.shrink(decoders, noise, JpegLimits(2000, 2000, 2000, 500, 500))
        assert caught.value.reason == "image_cannot_be_shrunk"


async def test_the_sandbox_level_is_reported(decoders: DecoderPool) -> None:
    await decoders.wait_ready()
    assert decoders.states()[0].hello["sandbox"] != "none"


async def test_the_sandbox_can_be_turned_off() -> None:
    async with DecoderPool(DecoderOptions(sandbox="off")) as pool:
        await pool.wait_ready()
        assert pool.states()[0].hello["sandbox"] == "none"


def png(width: int, height: int, *, depth: int, colour_type: int, row: bytes, rows: int | None = None) -> bytes:
    """A PNG built chunk by chunk: of any depth, and of more pixels than should be held in memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    lines = [packer.compress(b"\0" + row) for _ in range(rows or height)]
    palette = chunk(b"PLTE", b"\0\0\0\xff\xff\xff") if colour_type == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = chunk(b"IDAT", b"".join(lines) + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + header + palette + body + chunk(b"IEND", b"")

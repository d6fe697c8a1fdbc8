"""What phones and cameras upload, and what is no picture: read, or refused with its own name and reason."""

from __future__ import annotations

import io
import struct
from collections.abc import AsyncIterator, Callable

import pillow_heif
import pytest
import pytest_asyncio
from PIL import Image, ImageStat

from tests.support import decoding, raw_files
from tests.support.pictures import bmp, samples, tiff, written
from worker.errors import CannotBeDone
from worker.images.content import Content
from worker.images.requests import Fit, Interpolation, JpegLimits, PixelRecipe
from worker.supervision.decoder_pool import Decoded, DecoderOptions, DecoderPool

SQUASH = PixelRecipe(64, Fit.SQUASH, 0, Interpolation.BICUBIC)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoders() -> AsyncIterator[DecoderPool]:
    pillow_heif.register_heif_opener()  # pictures are written with it
    async with DecoderPool(DecoderOptions(timeout_s=20)) as pool:
        yield pool


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def decode(pool: DecoderPool, data: bytes) -> tuple[Decoded, Image.Image]:
    return await decoding.decode(pool, data, SQUASH)


LONG_SVG = b"<!-- " + b"a long comment " * 3000 + b"-->\n<svg xmlns='http://www.w3.org/2000/svg'/>"


async def refusal(pool: DecoderPool, data: bytes) -> CannotBeDone:
    return await decoding.refusal(pool, data, SQUASH)


def left_and_right(image: Image.Image) -> tuple[list[int], list[int]]:
    """The mean colours of two parts of a picture."""
    parts = ((0, 0, 24, 64), (40, 0, 64, 64))
    left, right = ([round(value) for value in ImageStat.Stat(image.crop(part)).mean] for part in parts)
    return left, right


@pytest.mark.parametrize("kind", raw_files.CONTAINERS)
async def test_a_raw_photograph_is_seen_by_its_preview(decoders: DecoderPool, kind: str) -> None:
    decoded, pixels = await decode(decoders, raw_files.CONTAINERS[kind](raw_files.jpeg((1616, 1080))))
    assert (decoded.facts.format, decoded.facts.width, decoded.facts.height) == (kind, 1616, 1080)
    left, right = left_and_right(pixels)
    assert min(left) > 245
    assert right[0] > 245
    assert max(right[1:]) < 10


@pytest.mark.parametrize("kind", raw_files.CONTAINERS)
async def test_a_raw_photograph_is_never_seen_by_its_thumbnail(decoders: DecoderPool, kind: str) -> None:
    error = await refusal(decoders, raw_files.CONTAINERS[kind](raw_files.jpeg((160, 120))))
    assert error.reason == "image_format_refused"
    assert f"raw photograph ({kind})" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        raw_files.tiff_raw(raw_files.jpeg((1616, 1080)), orientation=6),
        raw_files.cr3(raw_files.jpeg((1616, 1080)), orientation=6),
    ],
)
async def test_the_preview_of_a_raw_photograph_is_turned_as_the_raw_file_says(
    decoders: DecoderPool, data: bytes
) -> None:
    decoded, pixels = await decode(decoders, data)
    assert (decoded.facts.width, decoded.facts.height) == (1080, 1616)
    top, bottom = left_and_right(pixels.transpose(Image.Transpose.ROTATE_90))
    assert min(top) > 245
    assert max(bottom[1:]) < 10


async def test_a_raw_photograph_becomes_a_smaller_jpeg_for_a_cloud_service(decoders: DecoderPool) -> None:
    with Content.from_bytes(raw_files.cr3(raw_files.jpeg((1616, 1080))), "body") as content:
        shrunk = await decoders.shrink(content, JpegLimits(1 << 20, 400, 400), "asset-1")
    assert Image.open(io.BytesIO(shrunk)).size == (400, 267)


@pytest.mark.parametrize("below", [False, True])
async def test_a_tiff_is_seen_by_its_picture_and_not_by_the_thumbnail_before_it(
    decoders: DecoderPool, below: bool
) -> None:
    decoded, pixels = await decode(
        decoders, raw_files.thumbnail_first(Image.new("RGB", (400, 300), "red"), below=below)
    )
    assert (decoded.facts.format, decoded.facts.width, decoded.facts.height) == ("TIFF", 400, 300)
    assert left_and_right(pixels)[0] == [255, 0, 0]


@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
async def test_phones_pictures_are_read_in_the_strictest_sandbox(name: str) -> None:
    image = Image.new("RGB", (1300, 900), "white")
    image.paste("red", (650, 0, 1300, 900))
    options = {"tile_size": 512} if name == "HEIF" else {}
    data = written(image, name, quality=90, **options)
    async with DecoderPool(DecoderOptions(sandbox="best", timeout_s=20)) as pool:
        await pool.wait_ready()
        if pool.states()[0].hello["sandbox"] != "seccomp":
            pytest.skip("this machine lacks Landlock or libseccomp")
        for _ in range(3):
            decoded, pixels = await decode(pool, data)
            assert (decoded.facts.format, decoded.facts.width, decoded.facts.height) == (name, 1300, 900)
            left, right = left_and_right(pixels)
            assert min(left) > 245
            assert right[0] > 240
            assert max(right[1:]) < 15


async def test_a_picture_from_a_phone_keeps_to_the_limit_of_memory() -> None:
    data = written(Image.new("RGB", (6000, 5000), "white"), "HEIF", quality=30, tile_size=1000)
    async with DecoderPool(DecoderOptions(maximum_memory_bytes=192 << 20, timeout_s=30)) as pool:
        error = await refusal(pool, data)
        assert error.reason == "image_too_large_memory", error
        await decode(pool, written(Image.new("RGB", (64, 64)), "HEIF"))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 99, "JPEG XL (image/jxl)"),
        (b"\xff\x0a" + b"\0" * 99, "JPEG XL (image/jxl)"),
        (b"\0\0\0\x18ftypjxl \0\0\0\0jxl isom", "JPEG XL (image/jxl)"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 99, "JPEG 2000 (image/jp2)"),
        (b"\x76\x2f\x31\x01\2\0\0\0" + b"\0" * 99, "OpenEXR (image/x-exr)"),
        (b"8BPS\0\1" + b"\0" * 99, "a Photoshop document (PSD) (image/vnd.adobe.photoshop)"),
        (b"\xd7\xcd\xc6\x9a" + b"\0" * 99, "a WMF drawing (image/wmf)"),
        (b"\1\0\0\0" + b"\0" * 36 + b" EMF" + b"\0" * 99, "an EMF drawing (image/emf)"),
        (b"%!PS-Adobe-3.1 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "EPS (image/x-eps)"),
        (b"\xc5\xd0\xd3\xc6" + b"\0" * 99, "EPS (image/x-eps)"),
        (b"P6 2 2 255\n" + b"\0" * 12, "PNM (image/x-portable-anymap)"),
        (b"qoif" + b"\0" * 99, "QOI (image/qoi)"),
        (
            b"<!-- " + b"a long comment " * 3000 + b"-->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
            "SVG (image/svg+xml)",
        ),
        ("<?xml version='1.0' encoding='utf-16'?><svg/>".encode("utf-16"), "SVG (image/svg+xml)"),
        (b"FOVb" + b"\0" * 99, "a raw photograph (X3F)"),
        (b"\0MRM" + b"\0" * 99, "a raw photograph (MRW)"),
    ],
)
async def test_a_picture_of_a_kind_that_is_not_taken_is_named(decoders: DecoderPool, data: bytes, name: str) -> None:
    error = await refusal(decoders, data)
    assert (error.reason, name in str(error)) == ("image_format_refused", True), error


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "a video (video/mp4)"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a video (video/quicktime)"),
        (b"\0\0\0\x08wide\0\0\1\0mdat", "a video (video/quicktime)"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\x82\x84webm", "a video (video/webm)"),
        (b"RIFF\0\0\1\0AVI LIST", "a video (video/x-msvideo)"),
        (b"%PDF-1.7\n", "a PDF document (application/pdf)"),
        (b"PK\3\4\x14\0\0\0\0\0[Content_Types].xml", "an Office document"),
        (b"PK\3\4\x14\0\0\0\0\0mimetypeapplication/vnd.oasis.opendocument.text", "oasis.opendocument.text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "an Office document of before 2007"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page (text/html)"),
        (b"<?xml version='1.0'?><error>AccessDenied</error>", "an XML document (application/xml)"),
        (b"%!PS-Adobe-3.0\n", "PostScript (application/postscript)"),
        (b"not a picture at all\n", "a text (text/plain)"),
        (b"\x7fELF" + b"\0" * 99, "a program"),
    ],
)
async def test_what_is_no_picture_is_named_too(decoders: DecoderPool, data: bytes, name: str) -> None:
    error = await refusal(decoders, data)
    assert (error.reason, name in str(error)) == ("image_unrecognised", True), error


GREY = Image.linear_gradient("L").resize((64, 48))
FRACTIONS = struct.pack("<9216f", *(0.5 for _ in range(64 * 48 * 3)))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (tiff("<", (64, 48), [32] * 3, 2, FRACTIONS, {339: (3, [3] * 3)}), "3 x 32 bits of floating point"),
        (tiff("<", (64, 48), [10], 1, bytes(4000)), "grey with 1 x 10 bits"),
        (tiff(">", (64, 48), [8], 1, bytes(4000), {259: (3, [34712])}), "compressed with JPEG 2000"),
        (tiff(">", (64, 48), [8] * 3, 32845, bytes(9216)), "LogLuv"),
        (tiff("<", (64, 48), [8] * 12, 1, bytes(64 * 48 * 12)), "12 samples a pixel"),
        (bmp((64, 48), 24, bytes(9216)).replace(b"\x18\0\0\0\0\0", b"\x18\0\4\0\0\0"), "a BMP with an embedded JPEG"),
        (b"\xff\xd8\xff\xc3\0\x0b\x0e\0\x30\0\x40\1\1\x11\0\xff\xda\0\x08\1\1\0\1\0\0" + b"\5" * 99, "lossless JPEG"),
        (b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x30\0\x40\1\1\x11\0\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\5" * 99, "12 bits"),
    ],
)
async def test_a_rare_kind_of_a_format_that_is_taken_is_named_and_not_called_damaged(
    decoders: DecoderPool, data: bytes, name: str
) -> None:
    error = await refusal(decoders, data)
    assert (error.reason, name in str(error)) == ("image_format_refused", True), error


@pytest.mark.parametrize("cut", [60, 400, 3000])
async def test_a_deep_tiff_that_ends_too_early_is_called_so(decoders: DecoderPool, cut: int) -> None:
    data = tiff("<", (64, 48), [16], 0, samples(GREY, 16, "<"))
    error = await refusal(decoders, data[:cut])
    assert error.reason == "image_truncated", error


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
async def test_a_jpeg_without_its_last_marker_is_seen_whole(decoders: DecoderPool, options: dict[str, bool]) -> None:
    data = written(Image.effect_noise((900, 700), 60).convert("RGB"), "JPEG", quality=90, **options)
    _, whole = await decode(decoders, data)
    for end in (data[:-2], data[:-1], data[:-2] + b"\0" * 700):
        _, pixels = await decode(decoders, end)
        assert pixels.tobytes() == whole.tobytes()
    with Content.from_bytes(data[:-2], "body") as content:
        shrunk = await decoders.shrink(content, JpegLimits(1 << 20, 300, 300), "asset-1")
    assert Image.open(io.BytesIO(shrunk)).size == (300, 233)
    error = await refusal(decoders, data[: len(data) * 9 // 10] + b"\0" * 700)
    assert error.reason == "image_truncated"


def _without_end_chunk(data: bytes) -> bytes:
    return data[: data.rindex(b"IEND") - 4]


def _with_damaged_text(data: bytes) -> bytes:
    return data[:33] + b"\0\0\0\3tEXta\0b????" + data[33:]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("PNG", _without_end_chunk),
        ("PNG", _with_damaged_text),
        ("GIF", lambda data: data[:-1]),
        ("BMP", lambda data: data[:-1]),
        ("WEBP", lambda data: data[:-1] if data.endswith(b"\0") else data + b"\0"),
        ("WEBP", lambda data: data[:4] + b"\xff\xff\xff\x7f" + data[8:]),
        ("WEBP", lambda data: data[:4] + b"\0\0\0\0" + data[8:]),
        ("TIFF", lambda data: data + b"something else"),
        ("JPEG", lambda data: data + b"something else"),
    ],
)
async def test_a_file_whose_pixels_are_whole_is_seen_whatever_else_is_wrong_with_it(
    decoders: DecoderPool, name: str, change: Callable[[bytes], bytes]
) -> None:
    data = written(GREY.convert("RGB").resize((63, 47)), name)
    assert change(data) != data
    _, whole = await decode(decoders, data)
    _, pixels = await decode(decoders, change(data))
    assert pixels.tobytes() == whole.tobytes()


async def test_damage_at_random_to_new_formats_never_kills_the_decoder(decoders: DecoderPool) -> None:
    whole = {
        "HEIF": written(GREY.convert("RGB"), "HEIF"),
        "AVIF": written(GREY.convert("RGB"), "AVIF"),
        "deep TIFF": tiff(">", (64, 48), [16, 16], 0, samples(Image.merge("LA", (GREY, GREY)), 16, ">")),
        "half floats": tiff("<", (64, 48), [16], 1, samples(GREY, 16, "<", kind="float"), {339: (3, [3])}),
        "NEF": raw_files.tiff_raw(raw_files.jpeg((400, 300))),
        "CR3": raw_files.cr3(raw_files.jpeg((400, 300))),
        "RAF": raw_files.raf(raw_files.jpeg((400, 300))),
    }
    for data in whole.values():
        await decode(decoders, data)
    await decoding.survives_damage(decoders, whole, SQUASH, copies=40, places=6, within=2000)

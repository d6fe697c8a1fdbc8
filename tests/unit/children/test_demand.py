"""What decoding takes, foreseen by its structure: no less memory than it does take, and which files take long."""

from __future__ import annotations

import ctypes
import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache

import pytest
from PIL import Image

from tests.support.bombs import jpeg_of_many_scans
from worker.children import opening, rendering
from worker.children.demand import Demand, Granted, MoreWanted, seconds
from worker.children.formats import jpeg, webp
from worker.images.content import Content
from worker.images.format import sniff
from worker.images.requests import Fit, Interpolation, JpegLimits, PixelRecipe

RECIPE = PixelRecipe(260, Fit.CROP, 1, Interpolation.BICUBIC)
LIMITS = JpegLimits(4 << 20, 1600, 1600)
SIZE = (2000, 1500)
ALL = Granted(1 << 40, may_have_more=False, quick_s=None)


@cache
def noise(mode: str) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise(SIZE, 60)] * 3).convert(mode)


@cache
def written(mode: str, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    noise(mode).save(file, kind, **options)
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: written("RGB", "JPEG"),
    "progressive JPEG": lambda: written("RGB", "JPEG", progressive=True, subsampling=0),
    "CMYK JPEG": lambda: written("CMYK", "JPEG", progressive=True),
    "PNG": lambda: written("RGB", "PNG", compress_level=1),
    "grey PNG": lambda: written("L", "PNG", compress_level=1),
    "transparent PNG": lambda: written("RGBA", "PNG", compress_level=1),
    "palette PNG": lambda: written("P", "PNG", compress_level=1, transparency=3),
    "GIF": lambda: written("P", "GIF"),
    "WebP": lambda: written("RGB", "WEBP", method=0),
    "lossless WebP": lambda: written("RGB", "WEBP", lossless=True, quality=0, method=0),
    "transparent WebP": lambda: written("RGBA", "WEBP", method=0),
    "AVIF": lambda: written("RGB", "AVIF", speed=10),
    "TIFF": lambda: written("RGB", "TIFF"),
    "LZW TIFF": lambda: written("RGB", "TIFF", compression="tiff_lzw"),
    "transparent TIFF": lambda: written("RGBA", "TIFF"),
    "BMP": lambda: written("RGB", "BMP"),
}


def own_bytes(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))


def peak_and_estimate(data: bytes, limits: JpegLimits | None) -> tuple[int, int]:
    """How much resident memory decoding took at most, in a process of its own, and how much was foreseen."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            ctypes.CDLL(None).malloc_trim(0)  # what lies ready would not be counted
            with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
                clear.write("5")  # the peak is what is resident now
            opening.prepare(1 << 26)
            before = own_bytes("VmRSS:")
            demand = Demand(ALL, limits)
            with (
                Content.from_bytes(data, "body") as content,
                opening.opened(
                    content.fd, demand, formats=opening.readable(), maximum_pixels=1 << 26, maximum_bytes=1 << 26
                ) as (picture, _),
            ):
                rendering.pixels(picture, [RECIPE]) if limits is None else rendering.jpeg(picture, limits)
            os.write(writing, struct.pack("QQ", own_bytes("VmHWM:") - before, demand.memory_bytes))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    if not answer:  # the fork of a process with threads, as that of other tests, may end early
        return peak_and_estimate(data, limits)
    peak, estimate = struct.unpack("QQ", answer)
    return peak, estimate


@pytest.mark.parametrize("limits", [None, LIMITS], ids=["for the model", "for a cloud"])
@pytest.mark.parametrize("kind", FILES)
def test_no_less_memory_is_foreseen_than_decoding_takes_and_not_much_more(kind: str, limits: JpegLimits | None) -> None:
    peak, estimate = peak_and_estimate(FILES[kind](), limits)
    assert peak < estimate < 2.5 * peak + (40 << 20)


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in chunks) + chunk(b"IEND", b"")


SMALL_JPEG = jpeg_of_many_scans(side=16, scans=1)

LONG: dict[str, Callable[[], bytes]] = {
    "JPEG of many scans": lambda: jpeg_of_many_scans(side=4000, scans=1000),
    "JPEG of many comments": lambda: SMALL_JPEG[:2] + b"\xff\xfe\0\3a" * 20_000 + SMALL_JPEG[2:],
    "JPEG of filling": lambda: SMALL_JPEG[:2] + b"\xff" * (2 << 20) + SMALL_JPEG[2:],
    "JPEG that never begins": lambda: b"\xff\xd8" + b"\xff\xe3\0\2" * 20_000,
    "JPEG of filling to its end": lambda: b"\xff\xd8" + b"\xff" * (2 << 20),
    "PNG of many chunks": lambda: png_of(*[(b"teXt", b"")] * 20_000),
    "GIF of many comments": lambda: b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\1a\0" * 20_000 + b",",
    "GIF of one long comment": lambda: b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1a" * 20_000 + b"\0,",
    "BMP of short runs": lambda: (
        b"BM" + struct.pack("<IHHIIiiHHI", 1 << 24, 0, 0, 1078, 40, 5000, 5000, 1, 8, 1) + b"\1\5" * 5_000_000
    ),
}


@pytest.mark.parametrize("kind", LONG)
def test_what_takes_long_for_few_bytes_is_told_by_its_structure(kind: str) -> None:
    data = LONG[kind]()
    media_type = sniff(data[:4096])
    assert seconds(media_type, data) > 1
    with pytest.raises(MoreWanted) as wanted:
        Demand(Granted(1 << 40, may_have_more=False, quick_s=1.0)).check_file(media_type, data)
    assert wanted.value.slow
    Demand(ALL).check_file(media_type, data)  # where there is all the time, it is decoded


@pytest.mark.parametrize("kind", FILES)
def test_ordinary_files_do_not(kind: str) -> None:
    data = FILES[kind]()
    assert seconds(sniff(data[:4096]), data) < 0.1


def test_what_takes_more_memory_than_its_grant_says_how_much_before_it_is_decoded() -> None:
    with (
        Content.from_bytes(FILES["transparent PNG"](), "body") as content,
        pytest.raises(MoreWanted) as wanted,
        opening.opened(
            content.fd,
            Demand(Granted(32 << 20, may_have_more=True, quick_s=1.0)),
            formats=opening.readable(),
            maximum_pixels=1 << 26,
            maximum_bytes=1 << 26,
        ),
    ):
        pytest.fail("it was opened")
    assert (32 << 20) < wanted.value.memory_bytes < (256 << 20)
    assert not wanted.value.slow


@pytest.mark.parametrize(
    ("options", "transparent"),
    [({"lossless": True}, False), ({"quality": 50}, False), ({"lossless": True, "exif": b"Exif\0\0II*\0"}, False)],
)
def test_the_size_of_a_webp_is_read_from_each_kind_of_header(options: dict[str, object], transparent: bool) -> None:
    file = io.BytesIO()
    Image.new("RGB", (123, 45), "red").save(file, "WEBP", **options)
    found = webp.canvas(file.getvalue())
    assert found is not None
    assert (found.size, found.transparent) == ((123, 45), transparent)
    assert webp.canvas(file.getvalue()[:19]) is None


def test_scans_are_counted_where_there_may_be_several() -> None:
    assert jpeg.head(jpeg_of_many_scans(side=16, scans=30)).scans > 30
    assert jpeg.head(FILES["JPEG"]()).scans == 1
    assert jpeg.head(b"no JPEG").scans == 1

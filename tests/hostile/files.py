"""Hostile files, made here: bombs, pictures that are two things at once, and mutations of every format.

Everything is derived from a seed: the same number gives the same files on every machine with the same libraries.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

from tests.fuzz import seeds
from tests.fuzz.mutation import mutated
from tests.support.bombs import jpeg_of_many_scans, png_of_many_pixels

_SIDE = 7000
"""Just below the 50 million pixels that are decoded."""


def bombs() -> dict[str, Callable[[], bytes]]:
    """Files that take much time or memory for their size, by what they are; each is made when it is asked for."""
    return {
        "JPEG of 10,000 scans": lambda: jpeg_of_many_scans(scans=10_000),
        "JPEG of 100 scans": lambda: jpeg_of_many_scans(side=_SIDE, scans=100),
        "JPEG of 300 scans without its end": lambda: jpeg_of_many_scans(scans=300)[:-2],
        "JPEG of 3 million comments": lambda: _within_jpeg(b"\xff\xfe\0\3a" * 3_000_000),
        "JPEG of 10 MB of filling": lambda: _within_jpeg(b"\xff" * 10_000_000),
        "JPEG of filling alone": lambda: b"\xff\xd8" + b"\xff" * 10_000_000,
        "JPEG of 300 tables of EXIF": lambda: _within_jpeg(_exif_segment() * 300),
        "PNG of 49 megapixels": lambda: png_of_many_pixels(_SIDE),
        "PNG of 49 megapixels, 16 bits": lambda: _png(_SIDE, colour=6, depth=16),
        "PNG, 16 bits and a transparent colour": lambda: _png(_SIDE, (b"tRNS", bytes(6)), colour=2, depth=16),
        "PNG, transparent": lambda: _png(_SIDE, colour=6),
        "PNG of 2 million chunks": lambda: _png(16, *[(b"teXt", b"")] * 2_000_000),
        "PNG of compressed texts": lambda: _png(16, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6), 9))] * 60),
        "PNG with a profile of 1 GB": lambda: _png(16, (b"iCCP", b"a\0\0" + _zeros(1 << 30))),
        "PNG that claims 2^31 pixels a side": lambda: _png(1 << 31, pixels=b""),
        "GIF of 5 million comments": lambda: _within_gif(b"!\xfe\1a\0" * 5_000_000),
        "GIF with a comment of 40 MB": lambda: _within_gif(b"!\xfe" + (b"\xff" + bytes(255)) * 160_000 + b"\0"),
        "GIF of 49 megapixels": lambda: _written(Image.new("P", (_SIDE, _SIDE)), "GIF"),
        "GIF of 100,000 frames": _gif_of_many_frames,
        "BMP of 10 million short runs": lambda: _bmp(b"\1\5" * 10_000_000),
        "BMP of line ends": lambda: _bmp(b"\0\0" * 10_000_000),
        "TIFF of 100,000 directories": _tiff_of_many_directories,
        "TIFF of a million strips": lambda: _written(
            Image.new("RGB", (50, 1_000_000)), "TIFF", compression="tiff_lzw", tiffinfo={278: 1}
        ),
        "TIFF whose directories go round": lambda: _tiff_of_many_directories(1, last=8),
        **{
            f"TIFF of 49 megapixels, {name}": lambda name=name: _written(  # type: ignore[misc]
                Image.new("RGB", (_SIDE, _SIDE)), "TIFF", compression=name
            )
            for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd", "jpeg")
        },
        "TIFF of 49 megapixels, fax": lambda: _written(Image.new("1", (_SIDE, _SIDE)), "TIFF", compression="group4"),
        "WebP of 34 bytes and 49 megapixels": lambda: _webp_header(_SIDE),
        "WebP of 34 bytes and 268 megapixels": lambda: _webp_header(16_383),
        "WebP of 49 megapixels": lambda: _written(Image.new("RGB", (_SIDE, _SIDE)), "WEBP", lossless=True),
        "WebP of 49 megapixels, transparent": lambda: _written(
            Image.new("RGBA", (_SIDE, _SIDE), (0, 0, 0, 1)), "WEBP", lossless=True
        ),
        "AVIF of 49 megapixels": lambda: _written(Image.new("RGB", (_SIDE, _SIDE)), "AVIF", speed=10),
        "ICO of 49 megapixels": lambda: _ico(_png(_SIDE, colour=6)),
        "ICO of 65,535 pictures": lambda: _ico(_png(16, colour=6), 65_535),
    }


def polyglots() -> dict[str, bytes]:
    """Pictures that are something else as well, or something else that looks like a picture."""
    photo = _written(Image.effect_noise((320, 240), 60).convert("RGB"), "JPEG")
    gif = _written(Image.new("P", (32, 32)), "GIF")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../etc/passwd", "x")
    script = b"<script>alert(1)</script>"
    return {
        "JPEG and ZIP": photo + archive.getvalue(),
        "GIF and JavaScript": gif[:6] + b"/*" + gif[8:] + b"*/=1;",
        "JPEG with a page in a comment": photo[:2]
        + b"\xff\xfe"
        + struct.pack(">H", len(script) + 2)
        + script
        + photo[2:],
        "PDF before a JPEG": b"%PDF-1.7\n" + photo,
        "SVG called nothing": b"<svg xmlns='http://www.w3.org/2000/svg'>" + script + b"</svg>",
        "SVG that fetches": b"<?xml version='1.0'?><!DOCTYPE svg SYSTEM 'file:///etc/passwd'><svg/>",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "MVG": b"push graphic-context\nfill 'url(https://x/)'\n",
        "TIFF that begins with a JPEG": photo[:100] + _written(Image.new("RGB", (9, 9)), "TIFF"),
        "ELF": b"\x7fELF" + bytes(200),
        "gzip": zlib.compress(bytes(1 << 20), 9, 31),
        "nothing": b"",
        "zeros": bytes(1 << 20),
    }


def mutations(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`number` mutated pictures, each with the name of the format it was made of, the formats in turn."""
    originals = _originals()
    names = sorted(originals)
    each = {name: mutated([originals[name]], -(-number // len(names)), f"{seed} {name}") for name in names}
    for place in range(number):
        name = names[place % len(names)]
        yield name, next(each[name])


def _originals() -> dict[str, bytes]:
    """A picture of each format and of some kinds of it, large enough to have more than a header."""
    # Noise of our own: Pillow's is another one after each use of it in the process.
    noise = bytes(min(255, max(0, round(each))) for each in _normal(120 * 90))
    picture = Image.merge("RGB", [Image.frombytes("L", (120, 90), noise)] * 3)
    found = {
        "BMP": _written(picture, "BMP"),
        "GIF": _written(picture.convert("P"), "GIF"),
        "ICO": _written(picture, "ICO"),
        "JPEG": _written(picture, "JPEG"),
        "JPEG, progressive": _written(picture, "JPEG", progressive=True),
        "JPEG, four colours": _written(picture.convert("CMYK"), "JPEG"),
        "PNG": _written(picture, "PNG"),
        "PNG, palette": _written(picture.convert("P"), "PNG", transparency=0),
        "PNG, transparent": _written(picture.convert("RGBA"), "PNG"),
        "TIFF": _written(picture, "TIFF"),
        "TIFF, LZW": _written(picture, "TIFF", compression="tiff_lzw"),
        "TIFF, JPEG": _written(picture, "TIFF", compression="jpeg"),
        "TIFF, fax": _written(picture.convert("1"), "TIFF", compression="group4"),
        "WebP": _written(picture, "WEBP"),
        "WebP, lossless": _written(picture.convert("RGBA"), "WEBP", lossless=True),
        "AVIF": _written(picture, "AVIF", speed=10),
        "raw photograph": next(data for data in seeds.images() if data.startswith(b"FUJIFILM")),
    }
    heif = [data for data in seeds.images() if data[4:12] == b"ftypheic"]
    return found | ({"HEIC": heif[0]} if heif else {})


def _normal(number: int) -> Iterator[float]:
    chance = random.Random("noise")
    for _ in range(number):
        yield chance.gauss(128, 60)


def _written(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _within_jpeg(segments: bytes) -> bytes:
    photo = _written(Image.new("RGB", (64, 64)), "JPEG")
    return photo[:2] + segments + photo[2:]


def _exif_segment() -> bytes:
    """Five thousand entries, each of which leads to the same directory."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + struct.pack("<HHII", 0x8769, 4, 1, 8) * 5000
    return b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif


def _png(
    side: int, *chunks: tuple[bytes, bytes], colour: int = 2, depth: int = 8, pixels: bytes | None = None
) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    if pixels is None:
        row = bytes(1 + side * {2: 3, 6: 4}[colour] * depth // 8)
        packer = zlib.compressobj(9)
        pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    middle = b"".join(chunk(name, data) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _zeros(length: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(length >> 20)) + packer.flush()


def _within_gif(blocks: bytes) -> bytes:
    return b"GIF89a\x10\0\x10\0\x80\0\0" + bytes(6) + blocks + b",\0\0\0\0\x10\0\x10\0\0\2\2\x84\x51\0;"


def _gif_of_many_frames(frames: int = 100_000) -> bytes:
    return b"GIF89a\x10\0\x10\0\x80\0\0" + bytes(6) + b",\0\0\0\0\x10\0\x10\0\0\2\2\x84\x51\0" * frames + b";"


def _bmp(runs: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 5000, 5000, 1, 8, 1, len(runs), 1, 1, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


def _tiff_of_many_directories(number: int = 100_000, *, last: int = 0) -> bytes:
    """`last`: where the last one says that the next is."""
    tags = [(256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 16), (279, 4, 256)]
    body = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags
    )
    size = len(body) + 4
    chain = b"".join(body + struct.pack("<I", 8 + size * place) for place in range(1, number))
    return b"II*\0\x08\0\0\0" + chain + body + struct.pack("<I", last) + bytes(256)


def _webp_header(side: int) -> bytes:
    size = (side - 1) | (side - 1) << 14
    return (
        b"RIFF"
        + struct.pack("<I", 26)
        + b"WEBPVP8L"
        + struct.pack("<I", 14)
        + b"\x2f"
        + struct.pack("<I", size)
        + bytes(9)
    )


def _ico(png: bytes, number: int = 1) -> bytes:
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(png), 6 + 16 * number)
    return struct.pack("<HHH", 0, 1, number) + entry * number + png

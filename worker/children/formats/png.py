"""16-bit PNGs, and colours that stand for transparency: read with the depth that the header gives.

Pillow keeps the transparent colour at the depth of the file and the pixels at another, so that none or too many of them
are it. https://www.w3.org/TR/png-3/#11tRNS
"""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Callable

from PIL import Image, ImageChops

from worker.children.picture import plain

_SIGNATURE_BYTES = 8
_MAXIMUM_CHUNKS = 100_000
_ANCILLARY = 0x20
"""The bit of the first letter of a chunk's name that says that the picture can be shown without it."""

_DEEP = 16
_GREY, _RGB = 0, 2
_LOADED = {_GREY: ("L", "L;16B"), _RGB: ("RGB", "RGB;16B")}
"""The mode in which a picture of 16 bits is loaded, and the raw mode that takes the upper half of each sample."""
_LOWER_HALVES = {_GREY: "L;16", _RGB: "RGB;16L"}
"""The raw mode that takes the lower halves: that of the other byte order."""


def prepare(image: Image.Image, data: bytes) -> Callable[[Image.Image], Image.Image]:
    """Have a PNG loaded at 8 bits; how to treat it when it is. `image` is that of `data`, opened."""
    depth, colour = data[24], data[25]
    if colour not in _LOADED:
        return plain
    key = image.info.get("transparency")
    if depth == _DEEP:
        _load_as(image, *_LOADED[colour])
        if key is None:
            return plain
        del image.info["transparency"]
        return functools.partial(_with_alpha, data=data, colour=colour, key=key if isinstance(key, tuple) else (key,))
    if isinstance(key, int) and image.mode == "L":
        image.info["transparency"] = (key & (1 << depth) - 1) * 255 // ((1 << depth) - 1)
    elif isinstance(key, tuple):
        image.info["transparency"] = tuple(value & 0xFF for value in key)
    return plain


def chunks(data: bytes, maximum: int) -> int:
    """How many chunks there are; no more than `maximum` are counted."""
    position = _SIGNATURE_BYTES
    for number in range(maximum):
        if position >= len(data):
            return number
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return maximum


def has_deep_transparent_colour(data: bytes) -> bool:
    """Whether a picture of 16 bits a channel may have a colour that stands for transparency."""
    return data[24] == _DEEP and data[25] in _LOADED and b"tRNS" in data[: data.find(b"IDAT")]


def mended(data: bytes) -> bytes:
    """The file without the chunks that say something beside the picture and are damaged: a decoder may ignore them.

    https://www.w3.org/TR/png-3/#13Decoders-Errors
    """
    kept = [data[:_SIGNATURE_BYTES]]
    position = _SIGNATURE_BYTES
    for _ in range(_MAXIMUM_CHUNKS):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        chunk = data[position:end]
        if len(chunk) < 12:
            break
        is_ancillary = bool(chunk[4] & _ANCILLARY)
        if not is_ancillary or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big"):
            kept.append(chunk)
        position = end
    return b"".join((*kept, data[position:]))


def _with_alpha(image: Image.Image, *, data: bytes, colour: int, key: tuple[int, ...]) -> Image.Image:
    """The picture with the pixels transparent that have the colour `key`, of 16 bits a channel."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as lower:
        _load_as(lower, _LOADED[colour][0], _LOWER_HALVES[colour])
        lower.load()
        alike = [
            _equal(band, half)
            for picture, halves in ((image, [value >> 8 for value in key]), (lower, [value & 0xFF for value in key]))
            for band, half in zip(picture.split(), halves, strict=True)
        ]
    image = image.convert("RGB")
    image.putalpha(ImageChops.invert(functools.reduce(ImageChops.darker, alike)))
    return image


def _equal(band: Image.Image, value: int) -> Image.Image:
    return band.point([255 if number == value else 0 for number in range(256)])


def _load_as(image: Image.Image, mode: str, raw_mode: str) -> None:
    """Change how the pixels are unpacked. Pillow has no public way; `load` reads these two attributes alone."""
    image._mode = mode
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]  # type: ignore[attr-defined]

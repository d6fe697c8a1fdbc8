"""How the samples of a TIFF picture are stored, and how they become 8-bit ones.

Pillow opens a TIFF whose layout is in its table and reports every other as no TIFF at all. Here the layouts that it can
unpack are found by what the directory says, each with what is left to do when it is loaded: scale a depth, exchange
black and white, put channels together. The others are refused by name. TIFF 6.0, with samples of 1 to 64 bits.
"""

from __future__ import annotations

import array
import functools
import io
import math
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image, ImageChops, TiffImagePlugin

from worker.children.formats import tiff
from worker.children.formats.tiff import Directory
from worker.children.picture import opaque_if_empty, plain
from worker.errors import CannotBeDone

Finish = Callable[[Image.Image], Image.Image]

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLOURS: Final = {
    _WHITE_IS_ZERO: "grey",
    _BLACK_IS_ZERO: "grey",
    _RGB: "RGB",
    _PALETTE: "palette",
    4: "transparency mask",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    _LAB: "Lab",
    _ICC_LAB: "ICC Lab",
    10: "ITU Lab",
    32844: "LogL",
    32845: "LogLuv",
    51177: "depth map",
}
_COMPRESSIONS: Final = {
    34661: "JBIG",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_UNCOMPRESSED, _OLD_JPEG, _JPEG = 1, 6, 7
_FAX = (2, 3, 4)
_SEPARATE_PLANES = 2
_REVERSED_BITS = 2
_MAXIMUM_SAMPLES = 8

_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_FORMATS: Final = {_UNSIGNED: "", _SIGNED: " with a sign", _FLOAT: " of floating point"}
_UNSPECIFIED, _ASSOCIATED = 0, 1
"""What an extra sample is: nothing in particular, or an alpha that the colours are multiplied with; else one that they
are not."""

_HIGH_DYNAMIC_RANGE = 16.0
"""Fractions below this are a picture of 0 to 1 with highlights, and no picture of 0 to 255: it would be black."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How Pillow is to unpack a picture: its mode and raw mode; without them, as its own table says.

    `finish` is what is to be done with the loaded picture.
    """

    mode: str = ""
    raw_mode: str = ""
    finish: Finish = plain
    through_libtiff: bool = False
    """It is not compressed, but libtiff alone can take it apart."""


@dataclass(frozen=True, slots=True)
class _Samples:
    """What a directory says about its samples. `bits`: those of each; `extra`: the kinds of those after colour."""

    photometric: int
    bits: tuple[int, ...]
    format: int
    extra: tuple[int, ...]
    is_planar: bool
    is_little_endian: bool
    """As Pillow gets them: libtiff gives them in this machine's order, whatever the file's is."""

    @property
    def is_inverted(self) -> bool:
        return self.photometric == _WHITE_IS_ZERO

    def __str__(self) -> str:
        colour = _COLOURS.get(self.photometric, f"colour {self.photometric}")
        depth = "/".join(str(bits) for bits in dict.fromkeys(self.bits))
        return f"{colour} with {len(self.bits)} x {depth} bits{_FORMATS.get(self.format, '')}"


def layout(directory: Directory) -> Layout:
    """How the picture of a directory is loaded. Raises `CannotBeDone` for one that is not read, with its name."""
    compression = directory.number(tiff.COMPRESSION, _UNCOMPRESSED)
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        raise _refused(f"compressed with {_COMPRESSIONS.get(compression, f'method {compression}')}")
    if compression == _OLD_JPEG:
        return Layout()
    uncompressed = compression == _UNCOMPRESSED
    samples = _samples(directory, directory.order == "<" if uncompressed else sys.byteorder == "little")
    through_libtiff = uncompressed and (
        (samples.is_planar and set(samples.bits) != {8})
        or samples.photometric == _YCBCR  # it may be subsampled
        or directory.number(tiff.FILL_ORDER, 1) == _REVERSED_BITS
    )
    if through_libtiff:
        samples = replace(samples, is_little_endian=sys.byteorder == "little")
    if len(samples.bits) > _MAXIMUM_SAMPLES:
        raise _refused(f"{len(samples.bits)} samples a pixel")
    found = _layout(samples) if compression != _JPEG or set(samples.bits) == {8} else None
    if found is None:
        raise _refused(str(samples))
    return replace(found, through_libtiff=through_libtiff)


def open_with(data: bytes, chosen: Layout) -> Image.Image:
    """Open the first directory of `data` in the layout that was chosen for it.

    Pillow has no public way to choose one. It reads these two globals while it opens a file, and nothing else does.
    """
    own_table, own_way = TiffImagePlugin.OPEN_INFO, TiffImagePlugin.READ_LIBTIFF
    if chosen.mode:
        TiffImagePlugin.OPEN_INFO = _OneLayout(chosen)
    TiffImagePlugin.READ_LIBTIFF = chosen.through_libtiff
    try:
        image = Image.open(io.BytesIO(data), formats=["TIFF"])
    finally:
        TiffImagePlugin.OPEN_INFO, TiffImagePlugin.READ_LIBTIFF = own_table, own_way
    if chosen.mode and getattr(image, "use_load_libtiff", False):
        # Pillow has changed the raw mode to that of its own table for this machine's byte order.
        image.tile = [
            tile._replace(args=(chosen.raw_mode, *tile.args[1:])) for tile in image.tile if isinstance(tile.args, tuple)
        ]
    return image


class _OneLayout(dict[Any, tuple[str, str]]):
    """A table that has the same layout for everything: Pillow's mode and raw mode."""

    def __init__(self, chosen: Layout) -> None:
        super().__init__()
        self._chosen = chosen

    def __missing__(self, key: object) -> tuple[str, str]:
        return self._chosen.mode, self._chosen.raw_mode


def _refused(what: str) -> CannotBeDone:
    message = f"it is a kind of TIFF that is not read: {what}; send it in grey, RGB or CMYK with 8 or 16 bits a channel"
    return CannotBeDone(message, reason="image_format_refused")


def _samples(directory: Directory, is_little_endian: bool) -> _Samples:
    bits = directory.numbers(tiff.BITS_PER_SAMPLE) or (1,)
    number = directory.number(tiff.SAMPLES_PER_PIXEL, 1)
    # Some writers give the bits of one sample for all, others those of more samples than there are.
    bits = bits * number if len(bits) == 1 and number <= _MAXIMUM_SAMPLES else bits[:number]
    extra = directory.numbers(tiff.EXTRA_SAMPLES)
    is_planar = directory.number(tiff.PLANAR, 1) == _SEPARATE_PLANES and len(bits) > 1
    if is_planar and extra and not any(extra):
        bits, extra = bits[: -len(extra)], ()  # Pillow leaves these planes out
    formats = directory.numbers(tiff.SAMPLE_FORMAT)[:1]
    sample_format = _UNSIGNED if not formats or formats[0] == _UNDEFINED else formats[0]
    photometric = directory.number(tiff.PHOTOMETRIC, _presumed(directory, len(bits)))
    return _Samples(photometric, bits, sample_format, extra, is_planar, is_little_endian)


def _presumed(directory: Directory, number: int) -> int:
    """The colours of a picture that does not say which it has, as libtiff presumes them."""
    if number >= 3:
        return _RGB
    is_fax = directory.number(tiff.COMPRESSION) in _FAX
    return _WHITE_IS_ZERO if is_fax else _BLACK_IS_ZERO


def _layout(samples: _Samples) -> Layout | None:
    """How these samples are loaded; None if they are not."""
    depth = samples.bits[0] if len(set(samples.bits)) == 1 else 0
    number = len(samples.bits)
    match samples.photometric, samples.format:
        case ((0 | 1), _) if number == 1:
            return _grey(samples, depth)
        case ((0 | 1), 1) if number == 2 and depth in (8, 16) and not (samples.is_planar and depth != 8):
            return _grey_and_alpha(samples, depth)
        case 2, 1 if depth in (8, 16):
            return _rgb(samples, depth)
        case 3, 1 if depth in (1, 2, 4, 8) and (number == 1 or samples.extra in ((0,), (2,))):
            return Layout()
        case 5, 1 if depth == 8 and 4 <= number <= 6 and not samples.is_planar:
            raw = "CMYK" + "X" * (number - 4)
            return Layout("CMYK", raw)
        case 5, 1 if depth in (8, 16) and number == 4:
            return Layout()
        case 6, 1 if depth == 8 and number in (1, 3):
            return Layout()
        case ((8 | 9), 1) if number == 3 and depth in (8, 16):
            return _lab(samples, depth)
    return None


def _grey(samples: _Samples, depth: int) -> Layout | None:
    scaled = functools.partial(_scaled, depth=depth, sample_format=samples.format, inverted=samples.is_inverted)
    order = "" if samples.is_little_endian else "B"
    match samples.format, depth:
        case 1, (1 | 8):
            return Layout("1" if depth == 1 else "L", ("1" if depth == 1 else "L") + ";I" * samples.is_inverted)
        case 1, (2 | 4):
            return Layout("L", f"L;{depth}" + "I" * samples.is_inverted)
        case 1, 12:
            return Layout("I;16", "I;12", scaled)
        case 1, 16:
            return Layout("L", "L;16" + order, ImageChops.invert if samples.is_inverted else plain)
        case 1, 32:
            return Layout("F", "F;32" + order, scaled)
        case 2, 8:
            return Layout("F", "F;8S", scaled)
        case 2, (16 | 32):
            return Layout("F", f"F;{depth}{order}S", scaled)
        case 3, 16:
            return Layout("I;16", "I;16" + order, lambda image: scaled(_from_halves(image)))
        case 3, (32 | 64):
            return Layout("F", f"F;{depth}{order}F", scaled)
    return None


def _grey_and_alpha(samples: _Samples, depth: int) -> Layout:
    kind = samples.extra[0] if samples.extra else None
    put_together = functools.partial(_put_together, kind=kind, inverted=samples.is_inverted)
    if depth == 8:
        return Layout("LA", "LA", lambda image: put_together(image.getchannel("L"), image.getchannel("A")))
    # Each pixel is taken for four channels: the lower and upper halves of both samples.
    grey, alpha = ("G", "A") if samples.is_little_endian else ("R", "B")
    return Layout("RGBA", "RGBA", lambda image: put_together(image.getchannel(grey), image.getchannel(alpha)))


def _rgb(samples: _Samples, depth: int) -> Layout | None:
    extra = len(samples.bits) - 3
    kind = samples.extra[0] if samples.extra else None
    if extra == 0:
        return Layout() if samples.is_planar else Layout("RGB", "RGB" + _suffix(samples, depth))
    if not 0 < extra <= {8: 3, 16: 1}[depth]:
        return None
    if samples.is_planar:
        return Layout(finish=opaque_if_empty if kind is None else plain)
    if kind is None and extra > 1:
        kind = _UNSPECIFIED
    letter = {_UNSPECIFIED: "X", _ASSOCIATED: "a"}.get(kind, "A") if kind is not None else "A"
    return Layout(
        "RGB" if letter == "X" else "RGBA",
        "RGB" + letter + "X" * (extra - 1) + _suffix(samples, depth),
        opaque_if_empty if kind is None else plain,
    )


def _lab(samples: _Samples, depth: int) -> Layout:
    signed = samples.photometric == _LAB
    return Layout("RGB", "RGB" + _suffix(samples, depth), functools.partial(_from_lab, signed=signed))


def _suffix(samples: _Samples, depth: int) -> str:
    """Of the raw mode of several channels."""
    return {8: "", 16: ";16L" if samples.is_little_endian else ";16B"}[depth]


def _scaled(image: Image.Image, *, depth: int, sample_format: int, inverted: bool) -> Image.Image:
    """Deep greys as 0 to 255. Pillow's own conversion would clip them: nearly everything would become white."""
    black, white = _range(image, depth, sample_format)
    gain = 255.0 / ((white - black) or 1.0)
    scaled = image.point(lambda value: value * gain + (-black * gain)).convert("L")
    return ImageChops.invert(scaled) if inverted else scaled


def _range(image: Image.Image, depth: int, sample_format: int) -> tuple[float, float]:
    """The values of black and white, or of white and black.

    Up to 16 bits the depth is the range. Deeper files hold what another program computed and rarely use theirs: the
    range is the smallest common one that has all values, and their own if some are negative.
    """
    if sample_format == _UNSIGNED and depth <= 16:
        return 0.0, float((1 << depth) - 1)
    darkest, brightest = _extrema(image)
    if sample_format == _FLOAT:
        if darkest > -1 and brightest < _HIGH_DYNAMIC_RANGE:
            return 0.0, 1.0
        return (0.0, 255.0) if darkest >= 0 and brightest <= 255 else (darkest, brightest)
    if darkest < 0:
        return darkest, brightest
    full = (1 << depth - (sample_format == _SIGNED)) - 1
    return 0.0, float(next((white for white in (0xFF, 0xFFFF, 0xFFFFFF) if brightest <= white < full), full))


def _extrema(image: Image.Image) -> tuple[float, float]:
    darkest, brightest = image.getextrema()
    if isinstance(darkest, tuple) or isinstance(brightest, tuple) or not math.isfinite(darkest + brightest):
        raise CannotBeDone("its brightness is not a finite number", reason="image_corrupt")
    return float(darkest), float(brightest)


def _from_halves(image: Image.Image) -> Image.Image:
    """Numbers of IEEE 754's 16-bit kind, which Pillow does not know, loaded as whole numbers."""
    width, height = image.size
    picture = Image.new("F", image.size)
    rows = max(1, (1 << 20) // width)
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(top + rows, height)))
        data = part.tobytes()
        floats = array.array("f", struct.unpack(f"<{len(data) // 2}e", data))
        picture.paste(Image.frombytes("F", part.size, floats.tobytes(), "raw", "F;32NF"), (0, top))
    return picture


def _put_together(grey: Image.Image, alpha: Image.Image, *, kind: int | None, inverted: bool) -> Image.Image:
    if inverted:
        grey = ImageChops.invert(grey)
    if kind == _UNSPECIFIED:
        return grey
    if kind == _ASSOCIATED:
        return Image.merge("RGBa", (grey, grey, grey, alpha)).convert("RGBA")
    whole = Image.merge("LA", (grey, alpha))
    return opaque_if_empty(whole) if kind is None else plain(whole)


def _from_lab(image: Image.Image, *, signed: bool) -> Image.Image:
    """Lab, loaded as RGB. Pillow has a and b with 128 for zero, as ICC Lab has; in TIFF's own they have a sign."""
    lightness, a, b = image.split()
    if signed:
        turned = [number ^ 0x80 for number in range(256)]
        a, b = a.point(turned), b.point(turned)
    return plain(Image.merge("LAB", (lightness, a, b)))

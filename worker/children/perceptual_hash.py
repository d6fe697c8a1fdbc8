"""Computes perceptual hashes, by which the parent recognises a picture that was compressed or resized.

The picture is drawn as a grey square of 32 x 32 and transformed by a discrete cosine transform (DCT-II); the signs of
the lowest frequencies are the bits. That is the hash of Zauner, "Implementation and Benchmarking of Perceptual Image
Hash Functions" (2010), section 3.2.1, but for two things: the bits are compared with 0, which is what the median of
these coefficients is nearly, so that they change independently of each other, and they are the 64 lowest frequencies
by the sum of both directions rather than a square of 8 x 8.

Of 100 photographs 99 are found again at quality 50 or half the size, and no two are nearer than 17 (docs/tags.md). With
a difference hash (dHash) 27 were found at half the size, as it depends on single pixels of a picture of 9 x 8.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from operator import add, mul, sub
from statistics import median

from PIL import Image

from worker.images.perceptual_hash import PerceptualHash

SIDE = 32
"""Of the square that a hash is computed of, in pixels."""

_BLANK = 0.1
_FAINT = 1.0
"""Median amplitude of the lowest frequencies, in grey levels. Below the first nothing but noise decides the bits: a
single colour has 0, a gradient 0.03, noise 0.1. Below the second a picture is compared by its detail too: of 600 pages
of text, forms and screenshots all are, of 100 photographs 5."""

_HALF = SIDE // 2
_AMPLITUDE = SIDE * SIDE / 2
_DETAIL_SIDE = 16
_LOWEST_SIDE = 11
_LOWEST = sorted(
    ((u, v) for u in range(_LOWEST_SIDE) for v in range(_LOWEST_SIDE) if u or v), key=lambda each: (sum(each), each)
)[:64]
_COSINES = [[math.cos(math.pi * (2 * x + 1) * u / (2 * SIDE)) for x in range(_HALF)] for u in range(_DETAIL_SIDE)]
"""By frequency; the second half of each wave mirrors the first."""


def of(square: Image.Image) -> PerceptualHash | None:
    """The hash of a picture drawn as an RGB square of SIDE pixels; None where there is too little in it."""
    grey = array("f", square.convert("F").tobytes()).tolist()
    rows = [grey[start : start + SIDE] for start in range(0, len(grey), SIDE)]
    frequencies = _transformed(rows, _LOWEST_SIDE)
    lowest = [frequencies[u][v] for u, v in _LOWEST]
    amplitude = median(map(abs, lowest)) / _AMPLITUDE
    if amplitude < _BLANK:
        return None
    detail = None
    if amplitude < _FAINT:
        finer = _transformed(rows, _DETAIL_SIDE)
        detail = _signs(value for row in finer for value in row)
    red, green, blue = square.resize((1, 1), Image.Resampling.BOX).tobytes()
    return PerceptualHash(_signs(lowest), detail, (red, green, blue))


def _signs(values: Iterable[float]) -> int:
    return int("".join("1" if value > 0 else "0" for value in values), 2)


def _transformed(rows: Sequence[list[float]], number: int) -> list[list[float]]:
    """The coefficients of the `number` lowest frequencies of the square in each direction."""
    across = [_waves(row, number) for row in rows]
    return [_waves(column, number) for column in map(list, zip(*across, strict=True))]


def _waves(line: list[float], number: int) -> list[float]:
    """How much of each frequency is in a line. An even wave is its own mirror image, an odd one its negative."""
    first, second = line[:_HALF], line[: _HALF - 1 : -1]
    folded = list(map(add, first, second)), list(map(sub, first, second))
    return [sum(map(mul, folded[u % 2], _COSINES[u])) for u in range(number)]

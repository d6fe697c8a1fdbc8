"""An index of 64-bit hashes: which of many differ from a given one in at most three bits. Exact, and plain.

Four bands of 16 bits: two hashes that differ in at most three bits have at least one band in common (the pigeonhole
principle), so only hashes with a band in common are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

MAXIMUM_DISTANCE = 3
"""In bits. For more there would have to be more bands."""

_BANDS = MAXIMUM_DISTANCE + 1
_BAND_BITS = 64 // _BANDS
_BAND_MASK = (1 << _BAND_BITS) - 1


class HashIndex:
    """Hashes by number. The numbers are the caller's; each is added once."""

    def __init__(self) -> None:
        self._hashes: dict[int, int] = {}
        self._numbers: dict[int, tuple[int, ...]] = {}
        """By band and its value. Nearly all have one, and a tuple of one is the smallest collection there is."""

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, number: int, bits: int) -> None:
        """Add a hash under a number that is not in use."""
        self._hashes[number] = bits
        for key in _keys(bits):
            self._numbers[key] = (*self._numbers.get(key, ()), number)

    def remove(self, number: int) -> None:
        """Remove what is under a number. Raises KeyError."""
        for key in _keys(self._hashes.pop(number)):
            left = tuple(each for each in self._numbers[key] if each != number)
            if left:
                self._numbers[key] = left
            else:
                del self._numbers[key]

    def near(self, bits: int, maximum_distance: int) -> Iterator[tuple[int, int]]:
        """Distance and number of each hash within `maximum_distance` bits (at most MAXIMUM_DISTANCE), in no order."""
        for number in {number for key in _keys(bits) for number in self._numbers.get(key, ())}:
            distance = (bits ^ self._hashes[number]).bit_count()
            if distance <= maximum_distance:
                yield distance, number


def _keys(bits: int) -> Iterator[int]:
    """Of each band, its place and its value in one number."""
    for band in range(_BANDS):
        yield (band << _BAND_BITS) | (bits >> (band * _BAND_BITS)) & _BAND_MASK

"""A perceptual hash: what a picture looks like, in so few bits that those of like pictures are nearly the same.

A plain value: a decoder computes it (`worker.children.perceptual_hash`), and the parent compares it.
"""

from __future__ import annotations

from dataclasses import dataclass

HASH_BYTES = 8
DETAIL_BYTES = 32


@dataclass(frozen=True, slots=True)
class PerceptualHash:
    """Of one picture as it is shown: upright, white where it is transparent.

    `bits`: 64, the signs of its coarsest structure. `detail`: 256 signs of finer structure, of a picture whose coarse
    structure is faint, as that of a page of text: many such pages have nearly the same `bits`. `colour`: its mean red,
    green and blue, 0 to 255.
    """

    bits: int
    detail: int | None
    colour: tuple[int, int, int]

    def distance(self, other: PerceptualHash) -> int:
        """In how many of the 64 bits two pictures differ."""
        return (self.bits ^ other.bits).bit_count()

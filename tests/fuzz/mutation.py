"""Seeded mutations: the same seed gives the same inputs on every machine, with no fuzzer installed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_WORDS = (
    *(b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00" * 8, b"\xff" * 8),
    *(b"NaN", b"1e999", b"-1", b"9" * 400, b"null", b"{}", b"[[[[", b'"', b"\\ud800", b"\x1b[31m", b"\xe2\x80\xae"),
)
"""What readers stumble over."""


def mutated(seeds: Sequence[bytes], number: int, seed: str) -> Iterator[bytes]:
    """`number` inputs made of the seeds: changed, cut, repeated, and joined in up to four places each."""
    chance = random.Random(seed)
    for _ in range(number):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            _mutate(data, seeds, chance)
        yield bytes(data)


def _mutate(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 2, 4, 8, 32)))
    match chance.randrange(7):
        case 0 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at:end] = chance.randbytes(end - at)
        case 2:
            data[at:end] = chance.choice(_WORDS)
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end] * chance.choice((1, 2, 16))
        case 5:
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            data[at:end] = other[start : start + chance.choice((1, 4, 16, 64))]
        case _:
            del data[at:]

"""The index of hashes finds exactly what a comparison with all of them finds."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.tagging.hash_index import MAXIMUM_DISTANCE, HashIndex

ANY = st.integers(0, (1 << 64) - 1)
FEW_BITS = st.lists(st.integers(0, 63), max_size=6)


def flipped(bits: int, places: list[int]) -> int:
    for place in places:
        bits ^= 1 << place
    return bits


@given(st.lists(st.tuples(ANY, FEW_BITS), max_size=30), st.data(), st.integers(0, MAXIMUM_DISTANCE))
def test_it_finds_what_a_comparison_with_all_finds(
    made: list[tuple[int, list[int]]], data: st.DataObject, maximum: int
) -> None:
    # Given hashes, many of which are near to each other, and some of which were removed again
    hashes = {number: flipped(made[number // 2][0], places) for number, (_, places) in enumerate(made)}
    index = HashIndex()
    for number, bits in hashes.items():
        index.add(number, bits)
    for number in data.draw(st.sets(st.sampled_from(sorted(hashes)))) if hashes else ():
        index.remove(number)
        del hashes[number]
    # When one is looked up
    near_one = st.builds(flipped, st.sampled_from(sorted(hashes.values())), FEW_BITS) if hashes else ANY
    wanted = data.draw(st.one_of(ANY, near_one))
    # Then all within the distance are found, and no other
    everything = {(wanted ^ bits).bit_count(): number for number, bits in hashes.items()}
    assert {distance for distance, _ in index.near(wanted, maximum)} == {each for each in everything if each <= maximum}
    assert {number for _, number in index.near(wanted, maximum)} == {
        number for number, bits in hashes.items() if (wanted ^ bits).bit_count() <= maximum
    }
    assert len(index) == len(hashes)


def test_what_was_removed_leaves_nothing_behind() -> None:
    index = HashIndex()
    for number in range(100):
        index.add(number, number)
    for number in range(100):
        index.remove(number)
    assert (len(index), index._numbers) == (0, {})
    with pytest.raises(KeyError):
        index.remove(1)


def test_a_look_up_among_ten_thousand_takes_microseconds() -> None:
    random_bits = random.Random(1)
    index = HashIndex()
    for number in range(10_000):
        index.add(number, random_bits.getrandbits(64))
    started_s = time.process_time()
    for _ in range(1000):
        list(index.near(random_bits.getrandbits(64), MAXIMUM_DISTANCE))
    assert (time.process_time() - started_s) / 1000 < 0.0005

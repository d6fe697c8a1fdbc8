"""What is remembered of images: for whom, for which model and settings, and how much."""

from __future__ import annotations

import random

import pytest

from worker.images.perceptual_hash import PerceptualHash
from worker.providers.base import Answer, Suggestion
from worker.tagging.near_duplicates import MAXIMUM_SUGGESTIONS, Looks, NearDuplicates

ANSWER = Answer((Suggestion("cat", 0.9),), "model@1")
BITS = 0x0123_4567_89AB_CDEF


def looks(
    bits: int = BITS, *, detail: int | None = None, colour: int = 100, size: tuple[int, int] = (400, 300)
) -> Looks:
    return Looks(PerceptualHash(bits, detail, (colour, colour, colour)), *size)


class Memory:
    """A memory, with what does not matter in a test filled in."""

    def __init__(self, maximum: int = 100) -> None:
        self.all = NearDuplicates(maximum)

    def keep(
        self, asset: str, what: Looks, *, instance: str = "acme", maximum: int = 100, answer: Answer = ANSWER
    ) -> None:
        self.all.remember(instance, asset, f"event of {asset}", what, {"tensorflow": ("model@1 0.1", answer)}, maximum)

    def found(
        self, what: Looks, *, instance: str = "acme", depends_on: str = "model@1 0.1", within: int = 3
    ) -> str | None:
        recalled = self.all.recall(instance, "tensorflow", depends_on, what, within)
        return None if recalled is None else f"{recalled.asset_id} {recalled.distance}"


@pytest.fixture
def memory() -> Memory:
    memory = Memory()
    memory.keep("first", looks())
    return memory


def test_what_looks_the_same_is_found_with_its_distance(memory: Memory) -> None:
    assert memory.found(looks()) == "first 0"
    assert memory.found(looks(BITS ^ 0b101 << 40)) == "first 2"
    assert memory.found(looks(BITS ^ 0b1111 << 40)) is None
    assert memory.found(looks(BITS ^ 0b11 << 40), within=1) is None


def test_another_instance_never_finds_it(memory: Memory) -> None:
    assert memory.found(looks(), instance="beta") is None


def test_another_model_or_another_setting_does_not_find_it(memory: Memory) -> None:
    assert memory.found(looks(), depends_on="model@2 0.1") is None
    assert memory.found(looks(), depends_on="model@1 0.2") is None
    assert memory.all.recall("acme", "google_cloud_vision", "model@1 0.1", looks(), 3) is None


def test_the_nearest_is_found_and_of_equal_ones_the_oldest(memory: Memory) -> None:
    memory.keep("second", looks())
    memory.keep("third", looks(BITS ^ 1))
    assert memory.found(looks()) == "first 0"
    assert memory.found(looks(BITS ^ 1)) == "third 0"


@pytest.mark.parametrize(
    ("other", "like"),
    [
        (looks(size=(800, 600)), True),
        (looks(size=(400, 308)), True),
        (looks(size=(400, 320)), False),
        (looks(size=(300, 400)), False),
        (looks(colour=116), True),
        (looks(colour=117), False),
        (looks(detail=0), False),
    ],
)
def test_shape_and_colour_count_too(other: Looks, like: bool) -> None:
    assert looks().like(other) is like
    assert other.like(looks()) is like


@pytest.mark.parametrize(
    ("other", "like"),
    [
        (looks(detail=(1 << 12) - 1), True),
        (looks(detail=(1 << 13) - 1), False),
        (looks(detail=0, size=(400, 302)), True),
        (looks(detail=0, size=(400, 308)), False),
        (looks(detail=0, colour=104), True),
        (looks(detail=0, colour=105), False),
    ],
)
def test_what_is_faint_is_compared_more_strictly(other: Looks, like: bool) -> None:
    assert looks(detail=0).like(other) is like


def test_a_long_answer_is_not_remembered(memory: Memory) -> None:
    longest = tuple(Suggestion(str(number), 0.5) for number in range(MAXIMUM_SUGGESTIONS))
    memory.keep("longest", looks(1), answer=Answer(longest, "model@1"))
    memory.keep("too long", looks(0xFF << 30), answer=Answer((*longest, Suggestion("cat", 0.5)), "model@1"))
    assert memory.found(looks(1)) == "longest 0"
    assert memory.found(looks(0xFF << 30)) is None
    assert len(memory.all) == 2


def test_an_instance_forgets_what_was_used_least_recently() -> None:
    memory, bits = Memory(), random.Random(3)
    what = [looks(bits.getrandbits(64)) for _ in range(4)]
    for number in range(3):
        memory.keep(str(number), what[number], maximum=3)
    assert memory.found(what[0]) == "0 0"
    memory.keep("3", what[3], maximum=3)
    assert [memory.found(each) for each in what] == ["0 0", None, "2 0", "3 0"]


def test_a_flood_of_one_instance_costs_the_others_nothing() -> None:
    memory, bits = Memory(30), random.Random(3)
    mine = [looks(bits.getrandbits(64)) for _ in range(10)]
    for number, each in enumerate(mine):
        memory.keep(str(number), each)
    for number in range(1000):
        memory.keep(f"flood {number}", looks(bits.getrandbits(64)), instance="flood", maximum=1000)
    assert [memory.found(each) for each in mine] == [f"{number} 0" for number in range(10)]
    assert len(memory.all) == 30


def test_thousands_of_instances_have_no_more_in_all_than_may_be() -> None:
    memory, bits = Memory(500), random.Random(3)
    for number in range(5000):
        memory.keep("asset", looks(bits.getrandbits(64)), instance=f"instance-{number}")
    assert len(memory.all) == 500
    assert len(memory.all._instances) == 500
    last = looks(7)
    memory.keep("last", last, instance="instance-1")
    assert memory.found(last, instance="instance-1") == "last 0"

"""The short run: every input that is kept, and seeded mutations of the seeds; `make fuzz` is the long one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, Target, retry_after

CORPUS = Path(__file__).with_name("corpus")
KEPT = sorted(CORPUS.glob("*/*"))


def check(target: Target, inputs: Iterable[bytes]) -> None:
    """Give a target its inputs; what it raises names the one that it could not take."""
    for data in inputs:
        try:
            target(data)
        except Exception as error:
            error.add_note(f"the input: {data[:2000]!r}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutations_are_read_or_refused(name: str) -> None:
    target, begin_with, number = TARGETS[name]
    check(target, [*begin_with(), *mutated(begin_with(), number, seed=name)])


def test_a_fault_in_what_is_fuzzed_is_noticed_and_its_input_named() -> None:
    def faulty(data: bytes) -> None:
        retry_after(data)
        if b"," not in data:
            raise KeyError("no comma")

    with pytest.raises(KeyError) as caught:
        check(faulty, mutated(seeds.retry_after(), 100, seed="any"))
    assert caught.value.__notes__[0].startswith("the input: b'")


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_was_a_finding_is_read_or_refused(kept: Path) -> None:
    TARGETS[kept.parent.name][0](kept.read_bytes())


def test_every_folder_of_the_corpus_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)

"""`autotag bench --tune`: what is tried on how many cores, and which candidate wins."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import pytest

from worker.diagnostics import tuning
from worker.diagnostics.tuning import Candidate, Measurement, candidates, tune
from worker.settings import Settings


@pytest.mark.parametrize("cores", [1, 2, 4, 8])
def test_what_is_tried_is_little_distinct_and_includes_a_child_and_a_thread_for_each_core(cores: int) -> None:
    tried = candidates(cores, batch_size=8)
    assert len(tried) == len(set(tried)) <= 12
    assert Candidate(cores, cores, 8) in tried
    assert all(candidate.decoders >= 1 and candidate.threads >= 1 for candidate in tried)


def test_a_choice_is_a_fragment_of_the_settings_file() -> None:
    assert tomllib.loads(Candidate(3, 2, 16).toml()) == {
        "decoder": {"children": 3},
        "tensorflow": {"threads": 2, "batch_size": 16},
    }


def test_a_choice_changes_only_what_it_is_about() -> None:
    changed = Candidate(3, 2, 16).applied_to(Settings())
    assert (changed.decoder.children, changed.tensorflow.threads, changed.tensorflow.batch_size) == (3, 2, 16)
    assert changed.decoder.timeout_s == Settings().decoder.timeout_s
    assert tuning.current(changed) == Candidate(3, 2, 16)


class Machine:
    """A machine that is told how fast each candidate is, the first time and later."""

    def __init__(self, best: Candidate, lucky: Candidate) -> None:
        self.best, self.lucky = best, lucky
        self.tried: list[Candidate] = []

    async def rate(self, settings: Settings, _contents: Sequence[Any], _seconds: float) -> float:
        candidate = tuning.current(settings)
        self.tried.append(candidate)
        if candidate == self.lucky and self.tried.count(candidate) == 1:
            return 300.0
        return 200.0 if candidate == self.best else 100.0


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning.os, "sched_getaffinity", lambda _pid: {0, 1})


@pytest.mark.usefixtures("two_cores")
async def test_a_lucky_trial_does_not_win_over_one_that_is_fast_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(best=Candidate(3, 1, 16), lucky=Candidate(1, 1, 16))
    monkeypatch.setattr(tuning, "rate", machine.rate)
    told: list[Measurement] = []
    found = await tune(Settings(), [], 60.0, told.append)
    assert (found.best, found.images_per_s) == (machine.best, 200.0)
    assert list(found.measurements) == told
    assert machine.tried.count(machine.lucky) > 1


@pytest.mark.usefixtures("two_cores")
async def test_the_number_of_trials_is_bounded_and_every_batch_size_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(best=Candidate(2, 2, 16), lucky=Candidate(2, 2, 8))
    monkeypatch.setattr(tuning, "rate", machine.rate)
    found = await tune(Settings(), [], 60.0)
    assert {candidate.batch_size for candidate in machine.tried} == set(tuning.BATCH_SIZES)
    assert len(found.measurements) == 6 + 4 + tuning.FINALISTS * tuning.FINAL_ROUNDS
    assert found.best == Candidate(2, 2, 16)

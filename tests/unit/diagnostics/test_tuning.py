"""`autotag bench --tune`: which candidates are measured for a number of cores, and which of them wins."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from typing import Any

import pytest

from worker.diagnostics import tuning
from worker.diagnostics.tuning import Candidate, Measurement, _only_the_local_model, candidates, tune
from worker.messages import DEFAULT_INSTANCE
from worker.settings import Settings


def test_it_measures_whatever_is_said_of_unknown_instances() -> None:
    settings = _only_the_local_model(Settings(unknown_instances="skip"))
    measured = settings.instance(DEFAULT_INSTANCE)
    assert measured is not None
    assert measured.tensorflow.enabled


@pytest.mark.parametrize("cores", [1, 2, 4, 8])
def test_the_candidates_are_few_and_distinct_and_include_a_child_and_a_thread_for_each_core(cores: int) -> None:
    found = candidates(cores, batch_size=8)
    assert len(found) == len(set(found)) <= 12
    assert Candidate(cores, cores, 8) in found
    assert all(candidate.decoders >= 1 and candidate.threads >= 1 for candidate in found)


def test_a_candidate_is_a_fragment_of_the_settings_file() -> None:
    assert tomllib.loads(Candidate(3, 2, 16).toml()) == {
        "decoder": {"children": 3},
        "tensorflow": {"threads": 2, "batch_size": 16},
    }


def test_a_candidate_changes_only_its_own_settings() -> None:
    changed = Candidate(3, 2, 16).applied_to(Settings())
    assert (changed.decoder.children, changed.tensorflow.threads, changed.tensorflow.batch_size) == (3, 2, 16)
    assert changed.decoder.timeout_s == Settings().decoder.timeout_s
    assert tuning.current(changed) == Candidate(3, 2, 16)


class Machine:
    """Replaces the measurement: `best` is always fast, `lucky` is fastest in its first measurement only."""

    def __init__(self, best: Candidate, lucky: Candidate) -> None:
        self.best, self.lucky = best, lucky
        self.measured: list[Candidate] = []

    async def rate(self, settings: Settings, _contents: Sequence[Any], _seconds: float) -> float:
        candidate = tuning.current(settings)
        self.measured.append(candidate)
        if candidate == self.lucky and self.measured.count(candidate) == 1:
            return 300.0
        return 200.0 if candidate == self.best else 100.0


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})


@pytest.mark.usefixtures("two_cores")
async def test_a_lucky_measurement_does_not_win_over_a_candidate_that_is_fast_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(best=Candidate(3, 1, 16), lucky=Candidate(1, 1, 16))
    monkeypatch.setattr(tuning, "rate", machine.rate)
    observed: list[Measurement] = []
    found = await tune(Settings(), [], 60.0, observed.append)
    assert (found.best, found.images_per_s) == (machine.best, 200.0)
    assert list(found.measurements) == observed
    assert machine.measured.count(machine.lucky) > 1


@pytest.mark.usefixtures("two_cores")
async def test_the_number_of_measurements_is_bounded_and_every_batch_size_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(best=Candidate(2, 2, 16), lucky=Candidate(2, 2, 8))
    monkeypatch.setattr(tuning, "rate", machine.rate)
    found = await tune(Settings(), [], 60.0)
    assert {candidate.batch_size for candidate in machine.measured} == set(tuning.BATCH_SIZES)
    assert len(found.measurements) == 6 + 4 + tuning.FINALISTS * tuning.FINAL_ROUNDS
    assert found.best == Candidate(2, 2, 16)

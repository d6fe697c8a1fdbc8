"""`autotag bench --tune`: which candidates are measured for a number of cores, and which of them wins."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from typing import Any

import pytest

from worker.diagnostics import tuning
from worker.diagnostics.counting import Counted
from worker.diagnostics.tuning import (
    FINALISTS,
    ROUNDS,
    Candidate,
    Measurement,
    Tuning,
    _only_the_local_model,
    candidates,
    tune,
)
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
    """Replaces the measurement: rates by candidate, one after the other; the last is repeated. Others have 100."""

    def __init__(self, rates: dict[Candidate, list[float]]) -> None:
        self.rates = rates
        self.measured: list[Candidate] = []

    async def count(self, settings: Settings, _contents: Sequence[Any], _seconds: float) -> Counted:
        candidate = tuning.current(settings)
        rates = self.rates.get(candidate, [100.0])
        rate = rates[min(self.measured.count(candidate), len(rates) - 1)]
        self.measured.append(candidate)
        return Counted(round(rate * 10), 10.0)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})


AS_IT_IS = Candidate(2, 2, 16)
FAST = Candidate(3, 1, 16)


async def tuned(monkeypatch: pytest.MonkeyPatch, rates: dict[Candidate, list[float]]) -> tuple[Tuning, Machine]:
    machine = Machine(rates)
    monkeypatch.setattr(tuning, "count", machine.count)
    observed: list[Measurement] = []
    found = await tune(Settings(), [], 60.0, observed.append)
    assert list(found.measurements) == observed
    assert found.current == AS_IT_IS
    return found, machine


@pytest.mark.usefixtures("two_cores")
async def test_a_lucky_measurement_does_not_win_over_a_candidate_that_is_fast_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lucky = Candidate(1, 1, 16)
    found, machine = await tuned(monkeypatch, {FAST: [200.0], lucky: [300.0, 100.0]})
    assert machine.measured.count(lucky) == 1 + ROUNDS
    assert (found.fastest, found.images_per_s, found.current_images_per_s) == (FAST, 200.0, 100.0)
    assert (found.gain, found.noise) == (1.0, 0.0), "what was measured before the rounds does not count"
    assert found.recommended == FAST


@pytest.mark.usefixtures("two_cores")
async def test_what_is_not_faster_by_more_than_the_noise_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    # Half of the rounds find 10 % more and less of the same candidate
    found, _ = await tuned(monkeypatch, {FAST: [140.0, 130.0, 110.0, 130.0, 110.0], AS_IT_IS: [100.0]})
    assert found.fastest == FAST
    assert (round(found.gain, 2), round(found.noise, 2)) == (0.20, 0.17)
    assert found.recommended == FAST
    found, _ = await tuned(monkeypatch, {FAST: [140.0, 140.0, 100.0, 140.0, 100.0], AS_IT_IS: [100.0]})
    assert (round(found.gain, 2), round(found.noise, 2)) == (0.20, 0.33)
    assert found.recommended is None


@pytest.mark.usefixtures("two_cores")
async def test_the_noise_of_the_settings_as_they_are_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = await tuned(monkeypatch, {FAST: [120.0], AS_IT_IS: [100.0, 100.0, 150.0, 100.0, 100.0]})
    assert found.noise == 0.5
    assert found.recommended is None


@pytest.mark.usefixtures("two_cores")
async def test_the_settings_as_they_are_take_part_in_every_round_however_slow_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, machine = await tuned(monkeypatch, {AS_IT_IS: [10.0, 500.0]})
    assert machine.measured.count(AS_IT_IS) == 1 + ROUNDS
    assert found.fastest == found.current == AS_IT_IS
    assert found.recommended is None, "there is nothing to change"


@pytest.mark.usefixtures("two_cores")
async def test_finalists_take_turns_so_that_a_busy_moment_hits_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    _, machine = await tuned(monkeypatch, {FAST: [200.0]})
    of_rounds = machine.measured[6 + 4 :]
    finalists = len(of_rounds) // ROUNDS
    assert 2 <= finalists <= FINALISTS + 1
    assert of_rounds == of_rounds[:finalists] * ROUNDS
    assert {candidate.batch_size for candidate in machine.measured} == set(tuning.BATCH_SIZES)

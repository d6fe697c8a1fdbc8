"""`autotag bench --tune`: what is tried on how many cores, and which choice wins."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import pytest

from worker.diagnostics import tuning
from worker.settings import Settings
from worker.diagnostics.tuning import Choice, Trial, candidates, tune


@pytest.mark.parametrize("cores", [1, 2, 4, 8])
def test_what_is_tried_is_little_distinct_and_includes_a_child_and_a_thread_for_each_core(cores: int) -> None:
    tried = candidates(cores, batch_size=8)
    assert len(tried) == len(set(tried)) <= 12
    assert Choice(cores, cores, 8) in tried
    assert all(choice.decoders >= 1 and choice.threads >= 1 for choice in tried)


def test_a_choice_is_a_fragment_of_the_settings_file() -> None:
    assert tomllib.loads(Choice(3, 2, 16).toml()) == {
        "decoder": {"children": 3},
        "tensorflow": {"threads": 2, "batch_size": 16},
    }


def test_a_choice_changes_only_what_it_is_about() -> None:
    changed = Choice(3, 2, 16).applied_to(Settings())
    assert (changed.decoder.children, changed.tensorflow.threads, changed.tensorflow.batch_size) == (3, 2, 16)
    assert changed.decoder.timeout_s == Settings().decoder.timeout_s
    assert tuning.current(changed) == Choice(3, 2, 16)


class Machine:
    """A machine that is told how fast each choice is, the first time and later."""

    def __init__(self, best: Choice, lucky: Choice) -> None:
        self.best, self.lucky = best, lucky
        self.tried: list[Choice] = []

    async def rate(self, settings: Settings, _contents: Sequence[Any], _seconds: float) -> float:
        choice = tuning.current(settings)
        self.tried.append(choice)
        if choice == self.lucky and self.tried.count(choice) == 1:
            return 300.0
        return 200.0 if choice == self.best else 100.0


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning.os, "sched_getaffinity", lambda _pid: {0, 1})


@pytest.mark.usefixtures("two_cores")
async def test_a_lucky_trial_does_not_win_over_one_that_is_fast_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(best=Choice(3, 1, 16), lucky=Choice(1, 1, 16))
    monkeypatch.setattr(tuning, "rate", machine.rate)
    told: list[Trial] = []
    found = await tune(Settings(), [], 60.0, told.append)
    assert (found.best, found.images_per_s) == (machine.best, 200.0)
    assert list(found.trials) == told
    assert machine.tried.count(machine.lucky) > 1


@pytest.mark.usefixtures("two_cores")
async def test_the_number_of_trials_is_bounded_and_every_batch_size_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(best=Choice(2, 2, 16), lucky=Choice(2, 2, 8))
    monkeypatch.setattr(tuning, "rate", machine.rate)
    found = await tune(Settings(), [], 60.0)
    assert {choice.batch_size for choice in machine.tried} == set(tuning.BATCH_SIZES)
    assert len(found.trials) == 6 + 4 + tuning.FINALISTS * tuning.FINAL_ROUNDS
    assert found.best == Choice(2, 2, 16)

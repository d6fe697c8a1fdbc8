"""The relaunch rule, compared with a separate reference implementation, and at the edges of its window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.supervision.relaunch import NEVER, RelaunchRule, after_crash, relaunches_left

T = 60.0


ANSWERS_ALWAYS = "an answer after every crash"


def reference(maximum: int, interval: float, happened: list[tuple[float, str]]) -> list[float | str]:
    """The decision at each crash, written from the design and independently of the code."""
    decisions: list[float | str] = []
    for position, (now, what) in enumerate(happened):
        if what != "crash":
            continue
        counted = 1
        for index, (time, earlier) in enumerate(happened[:position]):
            old = now - time >= interval
            answered_since = any(w == "answer" and t > time for t, w in happened[index:position])
            if earlier == "crash" and not (old and answered_since):
                counted += 1
        if counted > maximum:
            return [*decisions, "disabled"]
        delay = 0.0
        for number in range(2, counted + 1):
            delay = 0.5 if number == 2 else min(30.0, delay * 2)
        decisions.append(delay)
    return decisions


def run(rule: RelaunchRule, times: list[float], answers: list[float] | str = ANSWERS_ALWAYS) -> list[float | str]:
    """The decisions of the rule; `answers`: when images were answered."""
    decisions: list[float | str] = []
    crashes: tuple[float, ...] = ()
    for time_s in times:
        answered_s = time_s if isinstance(answers, str) else max((t for t in answers if t <= time_s), default=NEVER)
        decision = after_crash(rule, crashes, answered_s, time_s)
        crashes = decision.crashes
        decisions.append("disabled" if decision.delay_s is None else decision.delay_s)
        if decision.delay_s is None:
            break
    return decisions


# Whole and half seconds, so that crashes exactly one interval apart come up often.
half_seconds = st.integers(min_value=0, max_value=400).map(lambda halves: halves / 2)


@given(
    maximum=st.integers(min_value=0, max_value=12),
    interval=st.sampled_from([0.5, 1.0, 10.0, 60.0]),
    happened=st.lists(st.tuples(half_seconds, st.sampled_from(["answer", "crash"])), max_size=60).map(sorted),
)
def test_it_agrees_with_the_reference(maximum: int, interval: float, happened: list[tuple[float, str]]) -> None:
    times = [time for time, what in happened if what == "crash"]
    answers = [time for time, what in happened if what == "answer"]
    assert run(RelaunchRule(maximum, interval), times, answers) == reference(maximum, interval, happened)


def test_with_five_the_sixth_crash_within_the_interval_disables() -> None:
    assert run(RelaunchRule(5, T), [0, 1, 2, 3, 4, 5]) == [0.0, 0.5, 1.0, 2.0, 4.0, "disabled"]


def test_with_none_allowed_the_first_crash_disables() -> None:
    assert run(RelaunchRule(0, T), [100]) == ["disabled"]


# Powers of two have exact sums, so that the edge is met to the last bit.
@pytest.mark.parametrize(("gap_s", "remembered"), [(T - 2**-20, True), (T, False), (T + 2**-20, False)])
def test_a_crash_with_an_answer_after_it_is_forgotten_exactly_one_interval_later(
    gap_s: float, remembered: bool
) -> None:
    times = [100.0, 100.0 + gap_s]
    assert run(RelaunchRule(1, T), times) == [0.0, "disabled" if remembered else 0.0]
    assert run(RelaunchRule(2, T), times) == [0.0, 0.5 if remembered else 0.0]
    assert run(RelaunchRule(0, T), times) == ["disabled"]


def test_a_model_that_answers_between_its_slow_crashes_is_relaunched_for_ever() -> None:
    times = [index * (T / 5) for index in range(100)]
    assert "disabled" not in run(RelaunchRule(5, T), times)


@pytest.mark.parametrize("gap_s", [T / 5, T, 10 * T, 1000 * T])
def test_a_model_that_answers_nothing_is_disabled_however_slowly_it_crashes(gap_s: float) -> None:
    times = [index * gap_s for index in range(100)]
    assert run(RelaunchRule(5, T), times, answers=[]) == [0.0, 0.5, 1.0, 2.0, 4.0, "disabled"]


def test_an_answer_before_a_crash_does_not_count_for_it() -> None:
    assert run(RelaunchRule(1, T), [10.0, 1000.0], answers=[9.0]) == [0.0, "disabled"]
    assert run(RelaunchRule(1, T), [10.0, 1000.0], answers=[10.0]) == [0.0, "disabled"]
    assert run(RelaunchRule(1, T), [10.0, 1000.0], answers=[10.5]) == [0.0, 0.0]


def test_an_answer_does_not_end_the_interval_early() -> None:
    assert run(RelaunchRule(1, T), [10.0, 10.0 + T / 2], answers=[11.0, 12.0]) == [0.0, "disabled"]


def test_without_a_limit_the_delay_grows_to_thirty_seconds_and_no_further() -> None:
    delays = run(RelaunchRule(None, 1e9), [float(index) for index in range(3000)])
    assert delays[:8] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(delays[8:]) == {30.0}


def test_without_a_limit_no_more_crashes_are_kept_than_matter() -> None:
    crashes: tuple[float, ...] = ()
    for index in range(1000):
        crashes = after_crash(RelaunchRule(None, T), crashes, NEVER, float(index)).crashes
    assert len(crashes) < 20


def test_the_budget_grows_back_as_crashes_are_forgotten_and_only_with_answers() -> None:
    rule = RelaunchRule(5, T)
    crashes = after_crash(rule, after_crash(rule, (), NEVER, 0.0).crashes, NEVER, 10.0).crashes
    assert [relaunches_left(rule, crashes, 11.0, now) for now in (11.0, 59.9, 60.0, 70.0)] == [3, 3, 4, 5]
    assert [relaunches_left(rule, crashes, 5.0, now) for now in (11.0, 60.0, 70.0, 1e6)] == [3, 4, 4, 4]
    assert [relaunches_left(rule, crashes, NEVER, now) for now in (11.0, 60.0, 1e6)] == [3, 3, 3]
    assert relaunches_left(RelaunchRule(None, T), crashes, NEVER, 10.0) is None

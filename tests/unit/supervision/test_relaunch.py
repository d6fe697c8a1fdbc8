"""The relaunch rule, compared with a separate reference implementation, and at the edges of its window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.supervision.relaunch import RelaunchRule, after_crash, relaunches_left

T = 60.0


def reference(maximum: int, interval: float, times: list[float]) -> list[float | str]:
    """The decision at each crash, written from the design and independently of the code."""
    answers: list[float | str] = []
    for last in range(len(times)):
        now = times[last]
        remaining = 0
        for earlier in times[: last + 1]:
            if not earlier <= now - interval:
                remaining += 1
        if remaining > maximum:
            answers.append("disabled")
            break
        delay = 0.0
        for number in range(2, remaining + 1):
            delay = 0.5 if number == 2 else min(30.0, delay * 2)
        answers.append(delay)
    return answers


def run(rule: RelaunchRule, times: list[float]) -> list[float | str]:
    answers: list[float | str] = []
    crashes: tuple[float, ...] = ()
    for time_s in times:
        decision = after_crash(rule, crashes, time_s)
        crashes = decision.crashes
        answers.append("disabled" if decision.delay_s is None else decision.delay_s)
        if decision.delay_s is None:
            break
    return answers


# Whole and half seconds, so that crashes exactly one interval apart come up often.
half_seconds = st.integers(min_value=0, max_value=400).map(lambda halves: halves / 2)


@given(
    maximum=st.integers(min_value=0, max_value=12),
    interval=st.sampled_from([0.5, 1.0, 10.0, 60.0]),
    times=st.lists(half_seconds, max_size=40).map(sorted),
)
def test_it_agrees_with_the_reference(maximum: int, interval: float, times: list[float]) -> None:
    assert run(RelaunchRule(maximum, interval), times) == reference(maximum, interval, times)


def test_with_five_the_sixth_crash_within_the_interval_disables() -> None:
    assert run(RelaunchRule(5, T), [0, 1, 2, 3, 4, 5]) == [0.0, 0.5, 1.0, 2.0, 4.0, "disabled"]


def test_with_none_allowed_the_first_crash_disables() -> None:
    assert run(RelaunchRule(0, T), [100]) == ["disabled"]


# Powers of two have exact sums, so that the edge is met to the last bit.
@pytest.mark.parametrize(("gap_s", "remembered"), [(T - 2**-20, True), (T, False), (T + 2**-20, False)])
def test_a_crash_is_forgotten_exactly_one_interval_later(gap_s: float, remembered: bool) -> None:
    times = [100.0, 100.0 + gap_s]
    assert run(RelaunchRule(1, T), times) == [0.0, "disabled" if remembered else 0.0]
    assert run(RelaunchRule(2, T), times) == [0.0, 0.5 if remembered else 0.0]
    assert run(RelaunchRule(0, T), times) == ["disabled"]


def test_a_slow_crash_loop_is_relaunched_for_ever() -> None:
    times = [index * (T / 5) for index in range(100)]
    assert "disabled" not in run(RelaunchRule(5, T), times)


def test_without_a_limit_the_delay_grows_to_thirty_seconds_and_no_further() -> None:
    delays = run(RelaunchRule(None, 1e9), [float(index) for index in range(3000)])
    assert delays[:8] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(delays[8:]) == {30.0}


def test_the_budget_grows_back_as_crashes_are_forgotten() -> None:
    rule = RelaunchRule(5, T)
    crashes = after_crash(rule, after_crash(rule, (), 0.0).crashes, 10.0).crashes
    assert [relaunches_left(rule, crashes, now) for now in (10.0, 59.9, 60.0, 70.0)] == [3, 3, 4, 5]
    assert relaunches_left(RelaunchRule(None, T), crashes, 10.0) is None

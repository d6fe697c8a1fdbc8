"""The turns of an account: a rate that is kept, and events that come back when there is a turn for them."""

from __future__ import annotations

import heapq
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.cloud.turns import Turns

DELAYS_S = (10.0, 60.0, 600.0)


def turns(calls_per_second: float, *, longest_wait_s: float = 10.0, images_per_call: int = 1) -> Turns:
    return Turns(calls_per_second, longest_wait_s=longest_wait_s, delays_s=DELAYS_S, images_per_call=images_per_call)


def test_a_burst_holds_one_seconds_calls_and_at_least_one() -> None:
    for calls_per_second, burst in [(0.5, 1), (1, 1), (3, 3)]:
        it = turns(calls_per_second)
        waits_s = [it.take(100.0) for _ in range(burst + 1)]
        assert waits_s[:-1] == [0.0] * burst
        assert waits_s[-1] == pytest.approx(1 / calls_per_second)


def test_a_turn_that_is_too_far_away_is_not_taken() -> None:
    it = turns(0.1)
    assert it.take(0.0) == 0.0
    it.take(0.0)
    assert it.take(9.0) is None
    assert it.take(11.0) == pytest.approx(9.0)


def test_a_turn_that_was_given_back_is_there_for_the_next() -> None:
    it = turns(0.1)
    it.take(0.0)
    it.give_back()
    assert it.take(0.0) == 0.0


@given(
    st.floats(0.05, 20),
    st.lists(st.floats(0, 3), min_size=2, max_size=60),
)
def test_no_second_has_more_calls_than_a_burst_and_the_rate_allow(calls_per_second: float, gaps_s: list[float]) -> None:
    it = turns(calls_per_second, longest_wait_s=1000)
    now_s, made_s = 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        wait_s = it.take(now_s)
        assert wait_s is not None
        made_s.append(now_s + wait_s)
    burst = max(1.0, calls_per_second)
    for first, at_s in enumerate(made_s):
        in_a_second = sum(1 for other_s in made_s[first:] if other_s < at_s + 1)
        assert in_a_second <= burst + calls_per_second + 1 + 1e-6


def test_only_as_many_events_are_begun_as_will_have_a_turn_in_time() -> None:
    it = turns(1.0, longest_wait_s=3.0)
    assert [it.promise(0.0) for _ in range(6)] == [True, True, True, True, False, False]
    # One that has had its turn makes room when the time of another comes
    it.take(0.0)
    it.keep_promises(1)
    assert not it.promise(0.0)
    assert it.promise(1.0)


def test_a_promise_that_nobody_came_for_is_forgotten() -> None:
    it = turns(0.1, longest_wait_s=5)
    assert it.promise(0.0)
    assert not it.promise(9.0)
    assert it.promise(10.0)


def test_a_call_with_many_images_is_promised_to_many_and_waits_a_moment_for_them() -> None:
    it = turns(0.1, longest_wait_s=5, images_per_call=16)
    assert [it.promise(0.0) for _ in range(17)].count(True) == 16
    assert it.worth_waiting_s(1, 0.0) == 1.0, "fifteen are on their way"
    assert it.worth_waiting_s(16, 0.0) == 0.0
    # Where another turn is there at once, nobody waits
    quick = turns(100.0, images_per_call=16)
    assert quick.promise(0.0)
    assert quick.promise(0.0)
    assert quick.worth_waiting_s(1, 0.0) == 0.0


@pytest.mark.parametrize(("calls_per_second", "events"), [(0.1, 300), (0.1, 1000), (1.0, 1000), (0.5, 40)])
def test_waiting_events_use_the_whole_rate_and_come_back_a_few_times_only(calls_per_second: float, events: int) -> None:
    it = turns(calls_per_second)
    arrivals = [(0.0, number) for number in range(events)]
    order = count(events)
    calls_s: list[float] = []
    looked = 0
    while arrivals:
        now_s, _ = heapq.heappop(arrivals)
        looked += 1
        if it.promise(now_s):
            wait_s = it.take(now_s)
            assert wait_s is not None
            it.keep_promises(1)
            calls_s.append(now_s + wait_s)
        else:
            heapq.heappush(arrivals, (now_s + it.come_back_s(now_s) + 0.05, next(order)))
    ideal_s = (events - 1) / calls_per_second
    assert len(calls_s) == events
    assert max(calls_s) <= 1.1 * ideal_s + DELAYS_S[0]
    # However many wait: an event comes back often only shortly before its turn
    assert looked / events <= 5 + 6 + 10 + ideal_s / DELAYS_S[-1]


def test_without_delays_an_event_comes_back_at_once() -> None:
    assert Turns(1.0, longest_wait_s=1, delays_s=()).come_back_s(0.0) == 0.0

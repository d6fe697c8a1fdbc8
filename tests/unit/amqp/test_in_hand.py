"""What each instance may have in hand, and when what is over that returns. The clock is the test's."""

from __future__ import annotations

import heapq
from contextlib import AsyncExitStack

import pytest

from worker.amqp.in_hand import Deferred, InHand, Timetable, deferrals_of, lane_prefetch
from worker.amqp.topology import Lane


class Clock:
    def __init__(self) -> None:
        self.now_s = 5000.0

    def __call__(self) -> float:
        return self.now_s


async def fill(in_hand: InHand, stack: AsyncExitStack, instance: str, *, lane: Lane = Lane.LIVE) -> int:
    """How many events of an instance are taken in hand, one after the other, until one is deferred."""
    number = 0
    while number < 1000:
        try:
            stack.enter_context(await in_hand.take(lane, instance))
        except Deferred:
            break
        number += 1
    return number


async def test_a_single_instance_is_never_deferred_below_the_prefetch() -> None:
    in_hand = InHand(lane_prefetch(64), clock=Clock())
    async with AsyncExitStack() as stack:
        assert await fill(in_hand, stack, "acme") == 64


async def test_beside_a_named_one_it_has_half_and_the_other_is_served_at_once() -> None:
    in_hand = InHand(lane_prefetch(64), clock=Clock())
    in_hand.know(["acme", "other"])
    async with AsyncExitStack() as stack:
        assert await fill(in_hand, stack, "acme") == 32
        assert await fill(in_hand, stack, "other") == 16


async def test_a_deferred_event_counts_no_attempt_and_says_how_often_it_was_deferred() -> None:
    seen: list[tuple[Lane, str]] = []
    in_hand = InHand(lane_prefetch(4), lambda lane, instance: seen.append((lane, instance)), clock=Clock())
    in_hand.know(["acme", "other"])
    async with AsyncExitStack() as stack:
        await fill(in_hand, stack, "acme")
        with pytest.raises(Deferred) as caught:
            stack.enter_context(await in_hand.take(Lane.LIVE, "acme", 3))
    assert (caught.value.counted, caught.value.deferrals, caught.value.reason) == (False, 4, "over_share")
    assert seen == [(Lane.LIVE, "acme")] * 2


async def test_what_comes_back_goes_before_what_is_new() -> None:
    in_hand = InHand(lane_prefetch(64), clock=Clock())
    in_hand.know(["acme", "other"])
    async with AsyncExitStack() as stack:
        await fill(in_hand, stack, "acme")
    async with AsyncExitStack() as stack:  # one event waits now
        taken = await fill(in_hand, stack, "acme")
        assert taken < 32, "a part of the share is left to what comes back"
        stack.enter_context(await in_hand.take(Lane.LIVE, "acme", 1))


async def test_what_has_come_back_to_another_worker_is_not_waited_for_any_longer() -> None:
    clock = Clock()
    in_hand = InHand(lane_prefetch(64), clock=clock)
    in_hand.know(["acme", "other"])
    async with AsyncExitStack() as stack:
        await fill(in_hand, stack, "acme")
    clock.now_s += 599
    async with AsyncExitStack() as stack:
        assert await fill(in_hand, stack, "acme") < 32, "it may come back yet"
    clock.now_s += 700
    async with AsyncExitStack() as stack:
        assert await fill(in_hand, stack, "acme") == 32


async def test_an_event_that_has_ended_makes_room() -> None:
    in_hand = InHand(lane_prefetch(4), clock=Clock())
    in_hand.know(["acme", "other"])
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        first.enter_context(await in_hand.take(Lane.LIVE, "acme"))
        stack.enter_context(await in_hand.take(Lane.LIVE, "acme"))
        with pytest.raises(Deferred):
            stack.enter_context(await in_hand.take(Lane.LIVE, "acme", 1))
        await first.aclose()
        stack.enter_context(await in_hand.take(Lane.LIVE, "acme", 1))


async def test_the_lanes_have_shares_of_their_own() -> None:
    in_hand = InHand(lane_prefetch(64), clock=Clock())
    in_hand.know(["acme", "other"])
    async with AsyncExitStack() as stack:
        assert await fill(in_hand, stack, "acme", lane=Lane.BULK) == 8
        assert await fill(in_hand, stack, "acme") == 32


@pytest.mark.parametrize("header", [None, "3", -1, True, b"x"])
def test_a_header_that_is_none_of_ours_counts_as_no_deferral(header: object) -> None:
    assert deferrals_of(header) == 0


def worked_off(backlog: int, per_s: float, share: int = 32) -> tuple[float, float]:
    """A backlog that one worker does at `per_s`: how long it takes, and how often an event is deferred on average.

    Events arrive 2,000 a second, and those in hand end one after the other.
    """
    timetable, now_s, in_hand, done, deferrals = Timetable(), 0.0, 0, 0, 0
    arriving = [(number / 2000, 0) for number in range(backlog)]
    heapq.heapify(arriving)
    next_end_s = 0.0
    while done < backlog:
        if in_hand and (not arriving or next_end_s <= arriving[0][0]):
            now_s = next_end_s
            in_hand, done = in_hand - 1, done + 1
            timetable.ended(now_s)
            next_end_s = now_s + 1 / per_s
            continue
        now_s, before = heapq.heappop(arriving)
        if before:
            timetable.returned(now_s)
        if in_hand < share:
            if not in_hand:
                next_end_s = now_s + 1 / per_s
            in_hand += 1
            timetable.begins(now_s)
        else:
            deferrals += 1
            heapq.heappush(arriving, (now_s + timetable.defer(in_hand, now_s), before + 1))
    return now_s, deferrals / backlog


@pytest.mark.parametrize("per_s", [15.0, 40.0, 150.0])
@pytest.mark.parametrize("backlog", [500, 10_000])
def test_a_backlog_comes_back_at_the_rate_at_which_it_can_be_done(backlog: int, per_s: float) -> None:
    took_s, deferrals = worked_off(backlog, per_s)
    assert took_s < 1.25 * backlog / per_s + 10, "the worker is hardly ever idle"
    assert deferrals < 6, "and no event comes back again and again"


def test_the_events_of_an_instance_that_gets_nothing_done_come_back_slowly() -> None:
    timetable = Timetable()
    timetable.begins(0.0)
    returns = [timetable.defer(32, 100.0) for _ in range(240)]
    assert returns == sorted(returns)
    assert len([each for each in returns if each < 1]) < 60
    assert max(returns) <= 60

"""Live before bulk, and the instances in turn. The clock is the test's."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.polling import eventually
from worker.supervision.turns import HOLD_S, OVERDUE_S, RECENT_S, FairQueue, Precedence, TakingTurns, Turn


@dataclass(eq=False)
class Picture:
    name: str
    turn: Turn
    queued_at_s: float = 0.0
    wanted: bool = True


class Scenario:
    """A queue, its precedence, and a clock that the test advances. `dispatched` counts the calls to dispatch."""

    def __init__(self, maximum_bulk: int = 1) -> None:
        self.now_s = 1000.0
        self.dispatched = 0
        self.precedence = Precedence(maximum_bulk, clock=lambda: self.now_s)
        self.queue: FairQueue[Picture] = FairQueue(self.precedence, self.dispatch, clock=lambda: self.now_s)

    def dispatch(self) -> None:
        self.dispatched += 1

    def add(self, *names: str, instance: str = "acme", bulk: bool = False) -> list[Picture]:
        pictures = [Picture(name, Turn(instance, bulk), self.now_s) for name in names]
        for picture in pictures:
            self.queue.append(picture)
        return pictures

    def take(self) -> str | None:
        """The name of the next picture that may begin."""
        lane, _ = self.queue.next_lane()
        return None if lane is None else self.queue.take(lane).name

    def take_all(self) -> list[str]:
        taken = []
        while (name := self.take()) is not None:
            taken.append(name)
        return taken


def test_the_instances_take_turns_and_each_keeps_its_order() -> None:
    it = Scenario()
    it.add("a1", "a2", "a3", "a4", instance="a")
    it.add("b1", "b2", instance="b")
    it.add("c1", instance="c")
    assert it.take_all() == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_live_images_go_before_bulk_images_that_came_first() -> None:
    it = Scenario()
    it.add("bulk1", "bulk2", bulk=True)
    it.add("live1", "live2")
    assert [it.take(), it.take()] == ["live1", "live2"]


def test_without_live_images_bulk_images_fill_the_childrens_hands() -> None:
    it = Scenario()
    it.add(*map(str, range(20)), bulk=True)
    assert it.queue.next_lane()[1] == 20
    assert len(it.take_all()) == 20


async def test_no_bulk_image_begins_while_a_live_one_is_present_nor_directly_after() -> None:
    it = Scenario()
    it.add("bulk", bulk=True)
    with it.precedence.present(Picture("live", Turn("acme"))):
        assert it.take() is None
    it.now_s += HOLD_S / 2
    assert it.take() is None
    it.now_s += HOLD_S
    assert it.take() == "bulk"


async def test_while_live_images_are_expected_bulk_images_go_one_at_a_time_with_pauses() -> None:
    it = Scenario()
    with it.precedence.present(Picture("live", Turn("acme"))):
        pass
    it.now_s += 1
    one, *_ = it.add("one", "two", "three", bulk=True)
    with it.precedence.present(one):
        assert it.queue.next_lane()[1] == 1
        assert it.take() == "one"
        assert it.take() is None
        it.now_s += 0.3
    it.now_s += 0.55
    assert it.take() is None, "nothing begins for twice as long as that took"
    it.now_s += 0.06
    assert it.take() == "two"
    it.now_s += RECENT_S
    assert it.take() == "three", "no live image is expected any more"


async def test_what_is_held_up_is_dispatched_again_when_the_live_image_has_gone() -> None:
    it = Scenario()
    it.add("bulk", bulk=True)
    with it.precedence.present(Picture("live", Turn("acme"))):
        assert it.take() is None
    await eventually(lambda: it.dispatched, "it was dispatched again")


async def test_a_bulk_image_that_has_waited_for_very_long_goes_first_but_only_one_a_second() -> None:
    it = Scenario()
    it.add("bulk1", "bulk2", bulk=True)
    it.now_s += OVERDUE_S + 1
    it.add("live1", "live2", "live3")
    assert it.take() == "bulk1"
    assert it.take() == "live1"
    it.now_s += 1.1
    assert it.take() == "bulk2"


async def test_one_instances_overdue_image_lets_no_fresh_bulk_of_others_go_before_live_ones() -> None:
    it = Scenario()
    it.add("old1", "old2", instance="old", bulk=True)
    it.now_s += OVERDUE_S + 1
    for number in range(50):
        it.add("fresh", instance=f"other-{number}", bulk=True)
    it.queue.put_back(it.add("put back", instance="another", bulk=True))
    it.add("live1", "live2")
    assert [it.take(), it.take()] == ["old1", "live1"]
    it.now_s += 1.1
    assert [it.take(), it.take()] == ["old2", "live2"]


async def test_an_overdue_image_that_went_without_having_been_taken_holds_up_no_live_one() -> None:
    it = Scenario()
    it.add("old", instance="old", bulk=True)
    it.now_s += OVERDUE_S + 1
    it.add("live")
    lane, number = it.queue.next_lane()  # as a child asks that turns out to have its hands full
    assert lane is not None
    assert (lane.head().name, number) == ("old", 1)
    assert [it.take(), it.take()] == ["old", "live"]


@pytest.mark.parametrize("bulk", [False, True])
def test_images_that_are_put_back_go_first_and_in_their_order(bulk: bool) -> None:
    it = Scenario()
    pictures = it.add("a1", "a2", "a3", instance="a", bulk=bulk)
    it.add("b1", instance="b", bulk=bulk)
    lane, _ = it.queue.next_lane()
    assert lane is not None
    taken = [it.queue.take(lane) for _ in range(3)]
    assert [each.name for each in taken] == ["a1", "b1", "a2"]
    it.queue.put_back([taken[0], taken[2]])
    assert it.take_all() == ["a1", "a2", "a3"]
    assert pictures[0] is taken[0]


async def test_a_bulk_image_that_is_put_back_makes_room_for_itself() -> None:
    it = Scenario()
    with it.precedence.present(Picture("live", Turn("acme"))):
        pass
    it.now_s += 1
    (bulk,) = it.add("bulk", bulk=True)
    assert it.take() == "bulk"
    it.queue.put_back([bulk])
    assert it.take() == "bulk"


def test_an_image_that_nobody_waits_for_can_be_taken_out() -> None:
    it = Scenario()
    one, two = it.add("one", "two")
    assert it.queue.remove(one)
    assert not it.queue.remove(one)
    assert it.take_all() == [two.name]
    assert len(it.queue) == 0


def test_several_instances_are_noticed() -> None:
    it = Scenario()
    it.add("one", instance="a")
    assert not it.queue.others_may_come
    it.add("two", instance="b")
    assert it.queue.others_may_come
    it.now_s += 601
    it.add("three", instance="a")
    assert not it.queue.others_may_come


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_nothing_is_lost_and_no_owner_waits_for_more_than_one_item_of_each_other(steps: list[tuple[str, bool]]) -> None:
    queue: TakingTurns[tuple[str, int]] = TakingTurns()
    added: dict[str, int] = {}
    taken: list[tuple[str, int]] = []
    passed: dict[str, int] = {}
    for owner, add in steps:
        if add:
            number = added[owner] = added.get(owner, 0) + 1
            queue.append(owner, (owner, number))
        elif queue:
            waiting = set(queue.owners)
            got = queue.pop()
            taken.append(got)
            for each in waiting:
                passed[each] = 0 if each == got[0] else passed.get(each, 0) + 1
            assert all(times < 3 for times in passed.values()), passed
    while queue:
        taken.append(queue.pop())
    assert sorted(taken) == sorted((owner, number) for owner, last in added.items() for number in range(1, last + 1))
    for owner in added:
        mine = [number for who, number in taken if who == owner]
        assert mine == sorted(mine)

"""Places for calls: a hung instance leaves room for all others."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.polling import eventually
from worker.providers.cloud.errors import CallNotMade
from worker.providers.cloud.places import Places, Share


async def take_all(share: Share, held: AsyncExitStack) -> int:
    """Hold as many places as there are for a share; returns how many."""
    taken = 0
    while True:
        try:
            await held.enter_async_context(share.place(0.0))
        except CallNotMade:
            return taken
        taken += 1


def answering(places: Places, name: str) -> Share:
    share = places.share(name)
    share.answered(True)
    return share


async def test_an_instance_has_no_more_than_its_own_limit() -> None:
    places = Places(shared=32, each=4)
    async with AsyncExitStack() as held:
        assert await take_all(answering(places, "a"), held) == 4


async def test_an_instance_that_has_not_answered_has_one_place() -> None:
    places = Places(shared=32, each=4)
    share = places.share("a")
    async with AsyncExitStack() as held:
        assert await take_all(share, held) == 1
        share.answered(True)
        assert await take_all(share, held) == 3
    share.answered(False)
    async with AsyncExitStack() as held:
        assert await take_all(share, held) == 1


async def test_an_instance_takes_no_more_of_what_is_shared_than_is_free() -> None:
    places = Places(shared=8, each=100)
    async with AsyncExitStack() as held:
        # One of its own, and of 8 shared ones half: then as many are free as it holds
        assert await take_all(answering(places, "a"), held) == 1 + 4
        assert await take_all(answering(places, "b"), held) == 1 + 2
        assert await take_all(answering(places, "c"), held) == 1 + 1
        assert await take_all(answering(places, "d"), held) == 1 + 1
        assert await take_all(answering(places, "e"), held) == 1


async def test_beside_a_hundred_hung_instances_another_has_all_of_its_places() -> None:
    places = Places(shared=32, each=4)
    async with AsyncExitStack() as held:
        for number in range(100):
            assert await take_all(places.share(f"hung {number}"), held) == 1
        assert await take_all(answering(places, "well"), held) == 4


async def test_a_place_that_is_given_back_goes_to_the_first_in_line_and_the_instances_take_turns() -> None:
    places = Places(shared=0, each=4)
    a, b = answering(places, "a"), answering(places, "b")
    order: list[str] = []
    go_on = asyncio.Event()

    async def hold(share: Share, name: str) -> None:
        async with share.place(5.0):
            order.append(name)
            await go_on.wait()

    async with asyncio.TaskGroup() as group:
        for name, share in [("a1", a), ("a2", a), ("a3", a), ("b1", b), ("b2", b)]:
            group.create_task(hold(share, name))
        await eventually(lambda: sorted(order) == ["a1", "b1"], "each has its first place")
        assert a.waited_s(asyncio.get_running_loop().time() + 7) >= 7
        go_on.set()
    assert [each for each in order if each[0] == "a"] == ["a1", "a2", "a3"]
    assert [each for each in order if each[0] == "b"] == ["b1", "b2"]
    assert a.waited_s(0.0) == 0.0


async def test_a_wait_for_a_place_is_bounded_and_is_no_attempt() -> None:
    share = Places(shared=8, each=4).share("acme")
    async with share.place(None):
        with pytest.raises(CallNotMade) as caught:
            async with share.place(0.01):
                pass
    assert (caught.value.reason, caught.value.counted) == ("calls_at_once", False)
    async with share.place(0.0):
        pass  # it is free again


async def test_whoever_gives_up_leaves_the_line_and_takes_no_place_along() -> None:
    share = Places(shared=8, each=4).share("acme")

    async def hold() -> None:
        async with share.place(None):
            pass

    async with share.place(None):
        waiting = [asyncio.create_task(hold()) for _ in range(3)]
        await eventually(share.has_waiting, "they wait")
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.wait(waiting[:2])
    # One was given the place at the very moment at which it is cancelled
    waiting[2].cancel()
    await asyncio.wait(waiting)
    assert share.held == 0
    assert not share.has_waiting()

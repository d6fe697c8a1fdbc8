"""Slots for fetches, and the circuits of image hosts and file servers."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack, suppress

import pytest

from tests.support.polling import eventually
from worker.errors import CannotBeDone, TryLater
from worker.sources import slots
from worker.sources.blocking import BlockingCalls, NoThreadFree
from worker.sources.breaker import SourceBreakers, SourceFailed
from worker.sources.slots import FairSlots


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of circuits: the test sets its only item."""
    now_s = [1000.0]
    monkeypatch.setattr("circuitbreaker.monotonic", lambda: now_s[0])
    return now_s


async def taken(fair: FairSlots, stack: AsyncExitStack, holder: str, number: int) -> None:
    for _ in range(number):
        async with asyncio.timeout(5):
            stack.enter_context(await fair.take(holder, "it"))


async def test_eight_that_hold_all_they_may_leave_room_for_a_ninth() -> None:
    fair = FairSlots(16)
    async with AsyncExitStack() as stack:
        await taken(fair, stack, "hung-0", 16)  # alone, it may have all
        for number in range(1, 8):
            await taken(fair, stack, f"hung-{number}", 2)
        await taken(fair, stack, "ninth", 2)


async def test_one_over_its_share_waits_outside_and_that_is_no_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "_LONGEST_WAIT_S", 0.02)
    fair = FairSlots(8)
    async with AsyncExitStack() as stack:
        await taken(fair, stack, "other", 1)
        await taken(fair, stack, "acme", 4)
        with pytest.raises(TryLater, match="its share of the 8") as caught:
            stack.enter_context(await fair.take("acme", "it"))
    assert (caught.value.reason, caught.value.counted) == ("over_share", False)


async def test_one_that_is_known_alone_waits_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_LONGEST_WAIT_S", 0.01)
    fair = FairSlots(1)
    got = asyncio.Event()

    async def third() -> None:
        with await fair.take("acme", "it"):
            got.set()

    async with AsyncExitStack() as stack:
        await taken(fair, stack, "acme", 2)  # what is guaranteed
        waiting = asyncio.create_task(third())
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
    async with asyncio.timeout(5):
        await got.wait()
        await waiting


async def test_those_that_wait_take_turns() -> None:
    fair = FairSlots(1)
    order: list[str] = []

    async def fetch(holder: str) -> None:
        with await fair.take(holder, "it"):
            order.append(holder)
            await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        await taken(fair, stack, "acme", 2)
        await taken(fair, stack, "other", 2)
        tasks = [asyncio.create_task(fetch(holder)) for holder in ("acme",) * 4 + ("other",) * 4]
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert order[:4].count("acme") == 2, order


async def test_a_slot_that_was_waited_for_in_vain_is_lost_to_nobody() -> None:
    fair = FairSlots(1)
    async with AsyncExitStack() as stack:
        await taken(fair, stack, "acme", 2)
        waiting = asyncio.create_task(fair.take("acme", "it"))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    async with AsyncExitStack() as stack:
        await taken(fair, stack, "acme", 2)


async def fail() -> None:
    raise SourceFailed("no answer", reason="content_unreachable")


async def succeed() -> None:
    return None


async def missing() -> None:
    raise TryLater("404", reason="content_missing")


async def test_a_host_that_fails_again_and_again_is_left_alone_but_for_a_probe(clock: list[float]) -> None:
    breaker = SourceBreakers(failures=3, open_s=30).of("acme", "images.test")
    for _ in range(3):
        with pytest.raises(SourceFailed):
            await breaker.call(fail)
    with pytest.raises(TryLater, match=r"images\.test") as caught:
        await breaker.call(succeed)
    assert (caught.value.reason, caught.value.counted, caught.value.after_s) == ("source_circuit_open", False, 30)
    clock[0] += 31
    probing = asyncio.Event()

    async def probe() -> None:
        probing.set()
        await asyncio.sleep(0.01)

    first = asyncio.create_task(breaker.call(probe))
    await probing.wait()
    with pytest.raises(TryLater, match="left alone"):
        await breaker.call(succeed)
    await first
    await breaker.call(succeed)


async def test_an_image_that_is_not_there_shows_that_the_host_answers() -> None:
    breaker = SourceBreakers(failures=2, open_s=30).of("acme", "images.test")
    for request in (fail, missing, fail, missing, fail, missing):
        with suppress(TryLater):
            await breaker.call(request)
    await breaker.call(succeed)


async def test_another_instance_and_another_host_have_circuits_of_their_own() -> None:
    breakers = SourceBreakers(failures=1, open_s=30)
    with pytest.raises(SourceFailed):
        await breakers.of("acme", "images.test").call(fail)
    with pytest.raises(TryLater, match="left alone"):
        await breakers.of("acme", "images.test").call(succeed)
    await breakers.of("acme", "other.test").call(succeed)
    await breakers.of("other", "images.test").call(succeed)


async def test_the_number_of_circuits_is_bounded() -> None:
    breakers = SourceBreakers(failures=1, open_s=30)
    for number in range(3000):
        breakers.of("acme", f"host-{number}.test")
    assert len(breakers._breakers) == 1000


async def test_calls_of_one_that_never_return_leave_threads_for_others() -> None:
    calls, hang = BlockingCalls(8), threading.Event()
    calls._share.known.see("other", 0.0)

    async def call(holder: str) -> None:
        hangs = holder == "hung"
        await calls.call(
            lambda: hangs and hang.wait(30), timeout_s=0.05 if hangs else 10, discard=lambda _: None, holder=holder
        )

    try:
        await call("other")
        for _ in range(4):
            with pytest.raises(TimeoutError):
                await call("hung")
        with pytest.raises(NoThreadFree):
            await call("hung")
        assert calls._busy == 4
        await call("other")
    finally:
        hang.set()
    await eventually(lambda: not calls._busy, "the calls have come back")


async def test_a_refusal_is_an_answer() -> None:
    async def refuse() -> None:
        raise CannotBeDone("too large", reason="content_too_large")

    breaker = SourceBreakers(failures=1, open_s=30).of("acme", "images.test")
    for _ in range(3):
        with pytest.raises(CannotBeDone):
            await breaker.call(refuse)

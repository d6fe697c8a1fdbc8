"""Decoders that cannot start are given up after three attempts; those of which one has started are not."""

from __future__ import annotations

import asyncio

import pytest

from worker.diagnostics.first_starts import REASON, FirstStarts
from worker.errors import Misconfigured, Unavailable
from worker.supervision.lifecycle import BecameDisabled, BecameReady, Cause, Crashed

CRASH = Crashed(Cause("spawn_failed", "could not be started: Permission denied"), counted=True, relaunches_left=None)


async def outcome(starts: FirstStarts) -> str:
    """What becomes of work that ends only when it is cancelled, or a turn later."""

    async def work() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "goes on"

    try:
        return await starts.while_one_can_start(work())
    except Misconfigured as error:
        return f"{error.reason}: {error}"


async def test_three_failed_starts_are_enough_and_the_cause_is_named() -> None:
    starts = FirstStarts()
    for child in ("decoder-1", "decoder-2"):
        starts.observe(child, CRASH)
    assert await outcome(starts) == "goes on"
    starts.observe("decoder-1", CRASH)
    expected = f"{REASON}: no decoder child can start: could not be started: Permission denied"
    assert (await outcome(starts)).startswith(expected)


async def test_where_one_has_started_once_nothing_is_given_up() -> None:
    starts = FirstStarts()
    starts.observe("decoder-1", BecameReady())
    for _ in range(10):
        starts.observe("decoder-2", CRASH)
    assert await outcome(starts) == "goes on"


async def test_decoders_that_are_disabled_before_one_started_are_given_up_at_once() -> None:
    starts = FirstStarts()
    starts.observe("decoder-1", BecameDisabled(Cause("sandbox_incomplete", "the kernel has no Landlock")))
    assert "no decoder child can start: the kernel has no Landlock" in await outcome(starts)


async def test_the_model_gives_up_by_its_own_rule() -> None:
    starts = FirstStarts()
    for _ in range(10):
        starts.observe("model-1", CRASH)
    assert await outcome(starts) == "goes on"


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise Unavailable("closed", reason="closed")

    with pytest.raises(Unavailable):
        await FirstStarts().while_one_can_start(work())

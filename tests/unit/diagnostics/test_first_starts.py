"""Children that cannot start are given up after three attempts; those that have started once are not."""

from __future__ import annotations

import asyncio

from worker.diagnostics.first_starts import REASON, FirstStarts
from worker.supervision.lifecycle import BecameDisabled, BecameReady, Cause, Crashed

CRASH = Crashed(Cause("spawn_failed", "could not be started: Permission denied"), counted=True, relaunches_left=None)


async def given_up(starts: FirstStarts) -> str | None:
    failing = asyncio.create_task(starts.failure())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if not failing.done():
        failing.cancel()
        return None
    assert failing.result().reason == REASON
    return str(failing.result())


async def test_three_failed_starts_of_a_kind_are_enough_and_the_cause_is_named() -> None:
    starts = FirstStarts()
    for child in ("decoder-1", "decoder-2"):
        starts.observe(child, CRASH)
    assert await given_up(starts) is None
    starts.observe("decoder-1", CRASH)
    assert "no decoder child can start: could not be started: Permission denied" in str(await given_up(starts))


async def test_a_kind_that_has_started_once_is_never_given_up() -> None:
    starts = FirstStarts()
    starts.observe("decoder-1", BecameReady())
    for _ in range(10):
        starts.observe("decoder-2", CRASH)
    assert await given_up(starts) is None


async def test_a_kind_that_is_disabled_before_it_started_is_given_up_at_once() -> None:
    starts = FirstStarts()
    starts.observe("model", BecameDisabled(Cause("illegal_instruction", "it needs AVX")))
    assert "no model child can start: it needs AVX" in str(await given_up(starts))

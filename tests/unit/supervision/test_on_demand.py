"""A pool that is there only while there is work for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.children import NoticeRecorder, decoder_pool, instruction, launches
from tests.support.polling import eventually
from worker.supervision import on_demand
from worker.supervision.decoder_pool import DecoderPool
from worker.supervision.on_demand import OnDemand


async def work(lane: OnDemand[DecoderPool]) -> None:
    async with lane.used() as pool:
        with instruction("well") as content:
            await pool.inspect(content, "an image")


async def test_it_starts_with_the_first_use_and_ends_some_time_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = OnDemand(lambda: decoder_pool(tmp_path, NoticeRecorder(), {}))
    assert lane.pool is None
    await work(lane)
    pool = lane.pool
    await work(lane)
    assert lane.pool is pool
    assert launches(tmp_path) == 1
    monkeypatch.setattr(on_demand, "IDLE_S", 0.05)
    async with lane.used():
        pass
    await eventually(lambda: lane.pool is None, "the pool is closed")
    await work(lane)
    assert launches(tmp_path) == 2
    await lane.close()
    assert lane.pool is None

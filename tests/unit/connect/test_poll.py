"""The poller's cursor: what can't be read for a moment, or was lost, is never taken for a first listing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from worker.amqp.topology import Lane
from worker.connect.inlets.listing import NoListing, Page
from worker.connect.inlets.poll import Poller
from worker.connect.intake import UploadIntake
from worker.connect.metrics import InMetrics
from worker.connect.seen import SeenImages
from worker.connect.uploads import Upload

DAY_S = 86_400.0


class Listed:
    """A listing that is at one moment, and notes where it was asked to begin."""

    def __init__(self) -> None:
        self.begun: list[str | None] = []
        self.now = "2026-01-01T00:00:00Z"

    async def pages(self, cursor: str | None) -> AsyncGenerator[Page, None]:
        self.begun.append(cursor)
        yield Page((Upload("a", "e", b"{}", self.now),), 0, (), self.now)


class Published:
    """Takes all that is published."""

    async def publish(self, upload: Upload, lane: Lane, *, within_s: float) -> None:
        pass


def poller_of(listed: Listed, seen: SeenImages) -> Poller:
    metrics = InMetrics(CollectorRegistry())
    outlet: Any = Published()
    return Poller(listed, 1, UploadIntake("dms", Lane.LIVE, outlet, seen, metrics), seen, metrics)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "seen.sqlite"


def test_a_listing_begins_where_the_one_before_has_ended_also_after_a_start(file: Path) -> None:
    listed = Listed()
    for _ in range(2):
        seen = SeenImages(file, DAY_S)
        asyncio.run(poller_of(listed, seen).list_once())
        seen.close()
    assert listed.begun == [None, listed.now]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "deleted"])
def test_a_cursor_that_is_lost_while_it_runs_is_still_known(file: Path, damage: str) -> None:
    listed, seen = Listed(), SeenImages(file, DAY_S)
    poller = poller_of(listed, seen)
    asyncio.run(poller.list_once())
    seen.close()  # as after any fault: it is opened again for the next use
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "truncated" else b"garbage" * 2000)
    seen._try_from_s = 0.0
    asyncio.run(poller.list_once())
    assert listed.begun == [None, listed.now]
    assert seen.cursor("dms") == listed.now
    seen.close()


def test_a_file_that_is_locked_for_a_moment_is_no_first_listing(file: Path) -> None:
    listed, seen = Listed(), SeenImages(file, DAY_S)
    asyncio.run(poller_of(listed, seen).list_once())
    with sqlite3.connect(file) as other:
        other.execute("BEGIN IMMEDIATE")
        fresh = poller_of(listed, seen)  # as after a start: nothing is known but what the file has
        with pytest.raises(NoListing, match="locked"):
            asyncio.run(fresh.list_once())
        other.rollback()
    other.close()
    seen._try_from_s = 0.0
    for _ in range(2):
        try:
            asyncio.run(fresh.list_once())
        except NoListing:
            continue  # the fault was still shown
    assert set(listed.begun[1:]) == {listed.now}
    assert len(listed.begun) >= 2
    seen.close()


def test_what_is_still_listed_is_never_forgotten(file: Path) -> None:
    now_s = 0.0
    seen = SeenImages(file, 10 * DAY_S, lambda: now_s)
    seen.note("dms", "kept", "1")
    seen.note("dms", "gone", "1")
    for day in range(0, 100, 4):
        now_s = day * DAY_S
        assert seen.has("dms", "kept", "1")
    for number in range(1000):  # which forgets what is old
        seen.note("dms", f"new {number}", "1")
    assert seen.has("dms", "kept", "1")
    assert not seen.has("dms", "gone", "1")
    assert not seen.has("dms", "kept", "2")
    assert not seen.has("other", "kept", "1")
    seen.close()

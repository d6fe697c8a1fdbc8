"""The thread that keeps ended events: batches, faults of the file, and its end."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.polling import until
from worker.amqp.delivery import Ending
from worker.messages import Result
from worker.operations.history import EndedDelivery, History
from worker.operations.history import writer as writer_module
from worker.operations.history.day import Day, DayStep, day_step
from worker.operations.history.kept import HistoryQuery
from worker.operations.history.writer import HistoryWriter

MEBIBYTE = 1 << 20


def ended(asset_id: str = "asset-1", ending: Ending = Ending.ANSWERED) -> EndedDelivery:
    result = Result(asset_id=asset_id, instance="default", event_id="e", status="tagged")
    return EndedDelivery(ending, "tagged", None, None, asset_id, "default", None, result, None, 0.1)


async def names(writer: HistoryWriter) -> list[str]:
    return [each.asset_id for each in (await writer.search(HistoryQuery())).results]


async def test_what_has_ended_is_on_disk_after_the_end_and_the_day_is_there_after_a_restart(tmp_path: Path) -> None:
    clock_s = time.time()
    for restart in range(2):
        writer = HistoryWriter(tmp_path, MEBIBYTE, 3600)
        history = History(0.0, writer)
        writer.start(history.day.merge)
        history.on_delivery_ended(ended(f"asset-{restart}"), 1.0, clock_s)
        history.on_delivery_ended(ended("retried", Ending.RETRIED), 1.0, clock_s)
        await writer.close()
        assert writer.state.lost == 0
    assert await names(writer) == ["asset-1", "asset-0"]
    assert sum(step.answered for step in history.day.window(clock_s)) == 2
    assert sum(step.put_off for step in history.day.window(clock_s)) == 2


async def test_a_directory_that_cannot_be_written_costs_history_and_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    lost: list[int] = []
    with capture_logs() as logs:
        writer = HistoryWriter(tmp_path / "state", MEBIBYTE, 3600, lost.append)
        writer.start(Day().merge)
        writer.add(ended(), time.time())
        writer.add(ended(), time.time())
        await writer.close()
    assert sum(lost) == writer.state.lost == 2
    assert writer.state.problem is not None
    assert [each["event"] for each in logs] == [
        "ended events are not written into the history; nothing else is affected"
    ]


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(50_000))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE results (other TEXT)")
    database.close()


@pytest.mark.parametrize(("damage", "is_set_aside"), [(_garbage, True), (_empty, False), (_foreign, True)])
async def test_a_file_that_is_no_history_is_set_aside_or_left_alone_with_a_word(
    tmp_path: Path, damage: Callable[[Path], None], is_set_aside: bool
) -> None:
    path = tmp_path / "history.sqlite3"
    damage(path)
    writer = HistoryWriter(tmp_path, MEBIBYTE, 3600)
    writer.start(Day().merge)
    until(lambda: writer.is_writing, "another one is begun")
    writer.add(ended(), time.time())
    await writer.close()
    assert (tmp_path / "history.damaged.sqlite3").exists() is is_set_aside
    if is_set_aside:
        assert "has been set aside as" in str(writer.state.set_aside)


async def test_a_file_that_is_damaged_while_it_is_open_is_set_aside_too(tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path, MEBIBYTE, 3600)
    writer.start(Day().merge)
    writer.add(ended("before"), time.time())
    await until_found(writer, "before")
    with writer.path.open("r+b") as raw:
        raw.write(b"\0" * writer.path.stat().st_size)
    for ending in ("-wal", "-shm"):
        (tmp_path / f"history.sqlite3{ending}").write_bytes(b"\xff" * 40_000)

    def goes_on() -> bool:
        writer.add(ended("after"), time.time())
        return writer.state.set_aside is not None

    until(goes_on, "it is noticed and set aside", within_s=20)
    writer.add(ended("after"), time.time())
    await until_found(writer, "after")
    await writer.close()
    assert (tmp_path / "history.damaged.sqlite3").exists()


async def test_a_full_disk_costs_history_and_it_goes_on_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_OPEN_AGAIN_AFTER_S", 0.0)
    writer = HistoryWriter(tmp_path, MEBIBYTE, 3600)
    writer.start(Day().merge)
    until(lambda: writer.is_writing, "the file is open")
    assert writer._file is not None
    writer._file._database.execute("PRAGMA max_page_count = 1")  # SQLite then fails as on a full disk: SQLITE_FULL
    lost = [ended(f"{number}" * 300) for number in range(9)]
    for each in lost * 20:
        writer.add(each, time.time())
    until(lambda: writer.state.lost, "events could not be kept")
    writer.add(ended("with space"), time.time())
    await until_found(writer, "with space")
    until(lambda: writer.state.problem is None, "it is well again")
    await writer.close()


async def test_a_file_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path, MEBIBYTE, 3600)
    writer.start(Day().merge)
    until(writer.path.exists, "it is there")
    first = writer.path.stat().st_ino
    for each in tmp_path.iterdir():  # noqa: ASYNC240 - a local directory
        each.rename(tmp_path.parent / each.name)
    until(lambda: writer.path.exists() and writer.path.stat().st_ino != first, "it is there again")
    writer.add(ended("after"), time.time())
    await until_found(writer, "after")
    await writer.close()


async def test_more_than_can_be_written_is_dropped_and_counted(tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path, MEBIBYTE, 3600)
    for number in range(5000):
        writer.add(ended(f"asset-{number}"), time.time())
    writer.start(Day().merge)
    await writer.close()
    assert writer.state.lost == 3000


def test_a_day_has_144_steps_and_forgets_what_is_older() -> None:
    day = Day()
    for step in range(300):
        day.record("answered", step * 600.0)
    window = day.window(299 * 600.0)
    assert len(window) == 144
    assert all(each.answered == 1 for each in window)
    assert len(day._steps) == 144
    day.record("failed", 600.0)  # the clock was set back
    assert day.window(600.0)[-1] == DayStep(failed=1)
    day.merge([(day_step(600.0), DayStep(answered=2))])
    assert day.window(600.0)[-1] == DayStep(answered=2, failed=1)


async def until_found(writer: HistoryWriter, name: str) -> None:
    import asyncio

    from worker.errors import Unavailable

    deadline_s = time.monotonic() + 20
    while True:
        try:
            if name in await names(writer):
                return
        except Unavailable:
            pass
        assert time.monotonic() < deadline_s, f"{name} was not found; {writer.state}"
        await asyncio.sleep(0.05)

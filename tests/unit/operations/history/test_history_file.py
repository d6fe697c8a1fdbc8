"""The history on disk: what is found in it, its bounds, and what happens to one that cannot be used."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worker.amqp.delivery import Ending
from worker.errors import Unavailable
from worker.messages import ProviderReport, Result, Tag
from worker.operations.history import EndedDelivery
from worker.operations.history.day import DayStep
from worker.operations.history.file import (
    FILE_NAME,
    SCHEMA,
    DamagedHistory,
    HistoryFile,
    search,
    set_aside,
)
from worker.operations.history.kept import HistoryQuery, KeptResult

MEBIBYTE = 1 << 20
NOW_S = 1_800_000_000.0


def kept(asset_id: str = "asset-1", *tags: str, at_s: float = NOW_S, **fields: Any) -> KeptResult:
    result = Result(
        asset_id=asset_id,
        instance=fields.pop("instance", "default"),
        event_id="e",
        status=fields.pop("status", "tagged"),
        tags=tuple(Tag(name=tag, confidence=0.9, provider="tensorflow") for tag in tags),
        providers=(ProviderReport("tensorflow", "ok", model="m@1", duration_s=0.02),),
        message=fields.pop("message", None),
    )
    ended = EndedDelivery(
        fields.pop("ending", Ending.ANSWERED),
        result.status,
        fields.pop("reason", None),
        result.message,
        asset_id,
        result.instance,
        fields.pop("file_name", None),
        result,
        None,
        0.1,
    )
    assert not fields
    found = KeptResult.of(ended, at_s)
    assert found is not None
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE_NAME


@pytest.fixture
def file(path: Path) -> Iterator[HistoryFile]:
    file = HistoryFile(path, MEBIBYTE, 3600)
    yield file
    file.close()


def found(path: Path, **query: Any) -> list[str]:
    return [each.asset_id for each in search(path, HistoryQuery(**query)).results]


# ── searching ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_kept_is_found_by_each_of_its_parts_the_newest_first(file: HistoryFile, path: Path) -> None:
    file.add(
        [
            kept("photos/100%_cat.jpg", "Cat", "animal"),
            kept("photos/dog.jpg", "dog", instance="acme", file_name="Hündchen.jpg"),
            kept("broken", status="failed", ending=Ending.DEAD_LETTERED, reason="image_truncated", message="too short"),
        ],
        {},
    )
    assert found(path) == ["broken", "photos/dog.jpg", "photos/100%_cat.jpg"]
    assert found(path, asset="PHOTOS/") == ["photos/dog.jpg", "photos/100%_cat.jpg"]
    assert found(path, asset="ündchen") == ["photos/dog.jpg"]
    assert found(path, asset="0%_c") == ["photos/100%_cat.jpg"]
    assert found(path, asset="0_") == found(path, asset="'; DROP TABLE results; --") == []
    assert found(path, tag="CAT") == ["photos/100%_cat.jpg"]
    assert found(path, instance="acme") == ["photos/dog.jpg"]
    assert found(path, status="failed") == ["broken"]
    assert found(path, instance="acme", tag="cat") == []
    assert found(path, since_s=NOW_S + 1) == []
    (broken,) = search(path, HistoryQuery(status="failed")).results
    assert (broken.dead_lettered, broken.reason, broken.message) == (True, "image_truncated", "too short")
    (cat,) = search(path, HistoryQuery(tag="cat")).results
    assert [tag.name for tag in cat.tags] == ["Cat", "animal"]
    assert (cat.providers[0].model, cat.providers[0].duration_s) == ("m@1", 0.02)


def test_pages_follow_each_other_without_a_gap(file: HistoryFile, path: Path) -> None:
    file.add([kept(f"asset-{number}") for number in range(5)], {})
    first = search(path, HistoryQuery(limit=3))
    assert [each.asset_id for each in first.results] == ["asset-4", "asset-3", "asset-2"]
    assert first.more
    second = search(path, HistoryQuery(limit=3, before=first.results[-1].number))
    assert [each.asset_id for each in second.results] == ["asset-1", "asset-0"]
    assert not second.more


def test_names_that_no_database_takes_are_kept_all_the_same(file: HistoryFile, path: Path) -> None:
    file.add([kept("a\udcffb", "tag\ud800", file_name="c\udcfe")], {})
    assert found(path, asset="a?b") == found(path, asset="a\udcffb") == ["a?b"]
    assert found(path, tag="tag\ud800") == ["a?b"]


def test_what_another_version_has_written_does_not_hide_the_rest(file: HistoryFile, path: Path) -> None:
    file.add([kept("old"), kept("odd"), kept("new")], {})
    with sqlite3.connect(path) as database:
        database.execute("UPDATE details SET json = json_set(json, '$.tags', json('[{\"no\": 1}]')) WHERE number = 2")
        database.execute("UPDATE details SET json = json_set(json, '$.providers[0].since', 7) WHERE number = 1")
    database.close()
    assert found(path) == ["new", "old"]


def test_what_comes_again_is_not_kept_yet() -> None:
    ended = EndedDelivery(Ending.RETRIED, None, "unreachable", "", "asset-1", "default", None, None, None, 0.1)
    assert KeptResult.of(ended, NOW_S) is None


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_file_stays_within_its_size_and_the_oldest_go(file: HistoryFile, path: Path) -> None:
    for batch in range(12):
        results = [kept(f"{batch}-{number}", "cat", message="x" * 300, at_s=NOW_S + batch) for number in range(500)]
        file.add(results, {})
        file.prune(NOW_S + batch, 0)
        assert path.stat().st_size <= 1.6 * MEBIBYTE, batch
    names = found(path, limit=100_000)
    assert names[0] == "11-499"
    assert "0-0" not in names
    assert len(names) > 500
    tagged = found(path, tag="cat", limit=100_000)
    assert tagged == names


def test_what_is_too_old_is_deleted(file: HistoryFile, path: Path) -> None:
    file.add([kept("old", at_s=NOW_S - 3601), kept("young", at_s=NOW_S - 3599)], {7: DayStep(1), 1000: DayStep(2)})
    file.prune(NOW_S, 1000)
    assert found(path) == ["young"]
    assert file.day(1000) == [(1000, DayStep(2))]


def test_counts_of_several_workers_are_added(file: HistoryFile, path: Path) -> None:
    other = HistoryFile(path, MEBIBYTE, 3600)
    file.add([], {1000: DayStep(1, 2, 3)})
    other.add([kept("of the other")], {1000: DayStep(10, 20, 30), 1001: DayStep(1)})
    other.close()
    assert dict(file.day(1001)) == {1000: DayStep(11, 22, 33), 1001: DayStep(1)}
    assert found(path) == ["of the other"]


# ── files that cannot be used ────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_else_may_read_it(file: HistoryFile, path: Path) -> None:
    file.add([kept()], {})
    modes = {each.name: each.stat().st_mode & 0o077 for each in path.parent.iterdir()}
    assert FILE_NAME in modes
    assert set(modes.values()) == {0}


@pytest.mark.parametrize("offset", [0, 30, 4096, 9000])
def test_a_damaged_file_is_recognised_and_set_aside(path: Path, offset: int) -> None:
    file = HistoryFile(path, MEBIBYTE, 3600)
    file.add([kept(f"asset-{number}", "cat") for number in range(300)], {})
    file.close()
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(os.urandom(6000))
    with pytest.raises(DamagedHistory) as caught:
        HistoryFile(path, MEBIBYTE, 3600)
    aside = set_aside(path, caught.value.inode)
    assert aside.exists()
    assert not path.exists()
    fresh = HistoryFile(path, MEBIBYTE, 3600)
    fresh.add([kept("after")], {})
    fresh.close()
    assert found(path) == ["after"]


def test_a_new_file_of_another_worker_is_not_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DamagedHistory) as caught:
        HistoryFile(path, MEBIBYTE, 3600)
    path.rename(path.with_name("moved by another worker"))
    HistoryFile(path, MEBIBYTE, 3600).close()
    set_aside(path, caught.value.inode)
    assert path.exists()


def test_a_search_in_a_damaged_file_says_so(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match="is damaged"):
        search(path, HistoryQuery())


def test_a_search_without_a_file_says_so(path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no history yet"):
        search(path, HistoryQuery())


def test_an_older_file_is_brought_up_to_date_and_a_newer_one_left_alone(path: Path) -> None:
    newer = (*SCHEMA, "ALTER TABLE results ADD COLUMN lane TEXT; CREATE INDEX lanes ON results (lane)")
    file = HistoryFile(path, MEBIBYTE, 3600)
    file.add([kept("before the upgrade")], {})
    file.close()
    upgraded = HistoryFile(path, MEBIBYTE, 3600, schema=newer)
    upgraded.add([kept("after the upgrade")], {})
    upgraded.close()
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="written by a newer version"):
        HistoryFile(path, MEBIBYTE, 3600)
    with pytest.raises(Unavailable, match="written by a newer version"):
        search(path, HistoryQuery())
    assert path.read_bytes() == before


def test_a_directory_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(Unavailable, match="cannot be used"):
        HistoryFile(tmp_path / "state" / FILE_NAME, MEBIBYTE, 3600)

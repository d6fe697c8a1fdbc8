"""The ledger survives crashes and remembers; one that is lost, damaged or read-only only ever leads to additions."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.connect.ledger import AssetRecord, Ledger, OwnTag, Removals

CAT, SOFA = OwnTag("cat", "cat", "tensorflow"), OwnTag("a sofa", "sofa", "google_cloud_vision")
RECORD = AssetRecord(mine=(CAT,), removed=(SOFA,), event_time_s=10.0, result_time_s=20.0)
NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(file: Path) -> Iterator[Ledger]:
    ledger = Ledger(file)
    yield ledger
    ledger.close()


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """What a file's mode forbids is forbidden, also where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_was_kept_is_there_after_a_start_and_is_nobody_elses(ledger: Ledger, file: Path) -> None:
    assert ledger.get("photos", "a/ü\udcff") is None
    assert ledger.put("photos", "a/ü\udcff", RECORD)
    ledger.close()

    again = Ledger(file)
    assert again.get("photos", "a/ü\udcff") == RECORD
    assert again.get("other", "a/ü\udcff") is None
    assert file.stat().st_mode & 0o777 == 0o600
    again.close()


def test_it_can_be_read_while_it_is_written(ledger: Ledger, file: Path) -> None:
    ledger.put("photos", "1", RECORD)
    reader = Ledger(file)
    ledger.put("photos", "2", RECORD)
    assert reader.get("photos", "2") == RECORD
    reader.close()


def test_a_deleted_file_is_noticed_while_it_is_open(ledger: Ledger, file: Path) -> None:
    ledger.put("photos", "1", RECORD)
    for each in file.parent.iterdir():
        each.unlink()

    assert ledger.get("photos", "1") is None
    assert ledger.put("photos", "1", RECORD)
    assert ledger.fault is None
    assert Ledger(file).get("photos", "1") == RECORD


@pytest.mark.parametrize("left", [0, 1, 100, 4096, 5000])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_truncated_file_is_a_lost_ledger_and_goes_on(file: Path, left: int, is_open: bool) -> None:
    ledger = Ledger(file)
    for number in range(200):
        ledger.put("photos", str(number), RECORD)
    other = sqlite3.connect(file)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    if not is_open:
        ledger.close()
    os.truncate(file, left)
    if not is_open:
        ledger = Ledger(file)

    found = [ledger.get("photos", str(number)) for number in range(200)]
    assert set(found) <= {None, RECORD}, "half a record is none"
    assert ledger.put("photos", "0", RECORD)
    assert ledger.fault is None
    assert ledger.get("photos", "0") == RECORD
    ledger.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be read as one" * 100, b"SQLite"])
def test_a_file_of_something_else_is_set_aside(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    ledger = Ledger(file)

    assert ledger.put("photos", "1", RECORD)
    assert ledger.fault is None
    assert [each.read_bytes() for each in file.parent.glob("*.damaged-*")] == [content]
    ledger.close()


@pytest.mark.parametrize("tags", ["{}", "[1]", '[["cat"]]', "no json", "null"])
def test_a_record_that_makes_no_sense_is_a_lost_ledger(file: Path, tags: str) -> None:
    Ledger(file).put("photos", "1", RECORD)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE assets SET mine = ?", (tags,))
    database.close()

    ledger = Ledger(file)
    assert ledger.get("photos", "1") in (None, AssetRecord(mine=(), removed=(SOFA,), event_time_s=10, result_time_s=20))
    assert ledger.put("photos", "1", RECORD)
    ledger.close()


def test_a_read_only_ledger_is_still_read_and_has_a_fault_until_it_can_be_written() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ledger.sqlite")
        first = Ledger(file)
        first.put("photos", "1", RECORD)
        first.close()
        file.chmod(0o444)
        file.parent.chmod(0o555)
        with without_roots_rights():
            ledger = Ledger(file)
            assert ledger.get("photos", "1") == RECORD
            assert not ledger.put("photos", "1", AssetRecord())
        assert ledger.fault is not None
        assert "none removed" in ledger.fault
        file.parent.chmod(0o755)
        file.chmod(0o644)

        ledger._try_from_s = 0.0  # as some seconds later
        assert ledger.put("photos", "1", AssetRecord())
        assert ledger.fault is None
        assert ledger.get("photos", "1") == AssetRecord()
        ledger.close()


def test_a_folder_in_the_files_place_is_a_fault_in_words(file: Path) -> None:
    file.mkdir(parents=True)
    ledger = Ledger(file)

    assert ledger.get("photos", "1") is None
    assert not ledger.put("photos", "1", RECORD)
    assert str(file) in str(ledger.fault)


def test_what_people_removed_is_counted_by_label_and_provider(ledger: Ledger) -> None:
    ledger.put("photos", "1", AssetRecord(mine=(CAT,), removed=(SOFA,)))
    ledger.put("photos", "2", AssetRecord(mine=(SOFA,), removed=(CAT,)))
    ledger.put("photos", "3", AssetRecord(mine=(CAT,), removed=(SOFA,)))
    ledger.put("other", "3", AssetRecord(mine=(CAT, SOFA)))

    assert ledger.removals() == [
        Removals("photos", "sofa", "google_cloud_vision", 2, 1),
        Removals("photos", "cat", "tensorflow", 1, 2),
    ]
    assert ledger.removals("other") == []


def test_a_result_is_older_by_its_events_time_and_then_by_its_own() -> None:
    record = AssetRecord(event_time_s=10.0, result_time_s=20.0)

    assert record.is_newer_than(9.0, 99.0)
    assert not record.is_newer_than(11.0, 1.0)
    assert record.is_newer_than(10.0, 19.0)
    assert not record.is_newer_than(10.0, 20.0), "the same once more"
    assert record.is_newer_than(None, 19.0)
    assert not record.is_newer_than(None, 21.0)


def test_what_stands_of_a_write_that_was_begun_is_ours_and_what_does_not_was_removed_by_nobody() -> None:
    record = AssetRecord(mine=(CAT,), adding=(SOFA,), removing=("CAT",))

    assert record.mine_before(["cat", "A Sofa"]) == (CAT, SOFA)
    assert record.mine_before([]) == (), "both were not added, or were removed by us"
    assert record.mine_before(["a sofa"], theirs=["a sofa"]) == (), "people had it before we began"
    assert AssetRecord(mine=(CAT,)).mine_before([]) == (CAT,), "so merge sees that people removed it"

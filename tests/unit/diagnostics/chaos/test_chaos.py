"""The chaos run's plan is the seed's alone, and its account notices every event that is missing or different."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.material import Due, Planned, photographs_in, plan
from worker.diagnostics.chaos.schedule import FEWEST_BLOWS, Kind, schedule
from worker.errors import Misconfigured


def test_the_same_seed_strikes_the_same_blows_and_another_one_others() -> None:
    assert schedule(1, 2000, Kind) == schedule(1, 2000, Kind)
    assert schedule(1, 2000, Kind) != schedule(2, 2000, Kind)


@pytest.mark.parametrize("events", [2000, 10_000])
def test_each_kind_is_struck_at_least_ten_times_while_there_is_still_work(events: int) -> None:
    blows = schedule(3, events, Kind)
    counts = Counter(blow.kind for blow in blows)
    assert set(counts) == set(Kind)
    assert min(counts.values()) >= FEWEST_BLOWS
    assert [blow.after for blow in blows] == sorted(blow.after for blow in blows)
    assert 0 < blows[0].after <= blows[-1].after <= events * 9 // 10


def test_a_short_run_has_fewer_blows() -> None:
    assert len(schedule(1, 100, [Kind.PARENT])) == 2


def test_the_same_seed_publishes_the_same_events_with_a_share_of_bad_ones(tmp_path: Path) -> None:
    photograph = tmp_path / "photograph.jpg"
    photograph.write_bytes(b"\xff\xd8 as good as one for this test \xff\xd9")
    events = plan(1, 1000, [photograph], tmp_path)
    assert events == plan(1, 1000, [photograph], tmp_path)
    assert len({event.event_id for event in events}) == 1000
    due = Counter(event.due for event in events)
    assert 0.02 < (due[Due.FAILED] + due[Due.SET_ASIDE]) / 1000 < 0.08
    for event in events:
        if event.due is not Due.SET_ASIDE:
            assert json.loads(event.body)["id"] == event.event_id


def test_a_directory_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no JPEG, PNG or WebP"):
        photographs_in(tmp_path)


def account(**due: Due) -> Ledger:
    return Ledger(Planned(name, b"", each) for name, each in due.items())


def result(event_id: str, status: str, *, complete: bool = True, **more: object) -> bytes:
    data = {"event_id": event_id, "status": status, "complete": complete, "providers": [], **more}
    return json.dumps({"time": "now", "data": data}).encode()


def test_an_event_without_an_end_is_lost() -> None:
    ledger = account(a=Due.LOOKED_AT, b=Due.LOOKED_AT, c=Due.FAILED, d=Due.FAILED, e=Due.SET_ASIDE)
    ledger.result(result("a", "tagged"), "1")
    ledger.result(result("c", "failed"), "2")
    ledger.result(result("d", "failed"), "3")
    ledger.dead_letter("d")
    assert ledger.lost == ["b", "c", "e"]  # c was answered, and is not kept
    assert ledger.ended == 2


def test_a_result_that_is_to_be_supplemented_is_no_end() -> None:
    ledger = account(a=Due.LOOKED_AT)
    ledger.result(result("a", "tagged", complete=False), "1")
    assert ledger.lost == ["a"]


def test_duplicates_may_differ_in_what_was_measured_and_in_nothing_else() -> None:
    ledger = account(a=Due.LOOKED_AT)
    for time in ("now", "then"):
        ledger.result(result("a", "tagged").replace(b"now", time.encode()), "1")
    assert (ledger.duplicates, ledger.differing_duplicates) == (1, 0)
    ledger.result(result("a", "tagged", tags=["another"]), "1")
    assert (ledger.duplicates, ledger.differing_duplicates) == (2, 1)


def test_what_never_went_in_and_what_ended_otherwise_than_due_is_told() -> None:
    ledger = account(good=Due.LOOKED_AT, bad=Due.FAILED)
    ledger.dead_letter("nobody's")
    ledger.result(result("good", "failed"), "1")
    ledger.dead_letter("good")
    ledger.result(result("bad", "tagged"), "2")
    assert ledger.strangers == ["nobody's"]
    assert ledger.blamed == 1
    assert ledger.misjudged == 1

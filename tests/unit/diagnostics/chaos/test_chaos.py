"""The chaos run's plan depends on the seed only, and its ledger finds every event that is missing or different."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.schedule import MINIMUM_FAULTS, FaultKind, schedule
from worker.diagnostics.chaos.workload import ExpectedEnd, PlannedEvent, photographs_in, plan
from worker.errors import Misconfigured


def test_the_same_seed_gives_the_same_faults_and_another_one_others() -> None:
    assert schedule(1, 2000, FaultKind) == schedule(1, 2000, FaultKind)
    assert schedule(1, 2000, FaultKind) != schedule(2, 2000, FaultKind)


@pytest.mark.parametrize("events", [2000, 10_000])
def test_each_kind_of_fault_happens_at_least_ten_times_while_there_is_still_work(events: int) -> None:
    faults = schedule(3, events, FaultKind)
    counts = Counter(fault.kind for fault in faults)
    assert set(counts) == set(FaultKind)
    assert min(counts.values()) >= MINIMUM_FAULTS
    assert [fault.after_events for fault in faults] == sorted(fault.after_events for fault in faults)
    assert 0 < faults[0].after_events <= faults[-1].after_events <= events * 9 // 10


def test_a_short_run_has_fewer_faults() -> None:
    assert len(schedule(1, 100, [FaultKind.PARENT])) == 2


def test_the_same_seed_publishes_the_same_events_with_a_share_of_bad_ones(tmp_path: Path) -> None:
    photograph = tmp_path / "photograph.jpg"
    photograph.write_bytes(b"\xff\xd8 as good as one for this test \xff\xd9")
    events = plan(1, 1000, [photograph], tmp_path)
    assert events == plan(1, 1000, [photograph], tmp_path)
    assert len({event.event_id for event in events}) == 1000
    expected = Counter(event.expected for event in events)
    assert 0.02 < (expected[ExpectedEnd.FAILED] + expected[ExpectedEnd.DEAD_LETTERED]) / 1000 < 0.08
    for event in events:
        if event.expected is not ExpectedEnd.DEAD_LETTERED:
            assert json.loads(event.body)["id"] == event.event_id


def test_a_directory_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no JPEG, PNG or WebP"):
        photographs_in(tmp_path)


def ledger_of(**expected: ExpectedEnd) -> Ledger:
    return Ledger(PlannedEvent(name, b"", each) for name, each in expected.items())


def result(event_id: str, status: str, *, complete: bool = True, **more: object) -> bytes:
    data = {"event_id": event_id, "status": status, "complete": complete, "providers": [], **more}
    return json.dumps({"time": "now", "data": data}).encode()


def test_an_event_without_an_end_is_lost() -> None:
    ledger = ledger_of(
        a=ExpectedEnd.ANSWERED,
        b=ExpectedEnd.ANSWERED,
        c=ExpectedEnd.FAILED,
        d=ExpectedEnd.FAILED,
        e=ExpectedEnd.DEAD_LETTERED,
    )
    ledger.result(result("a", "tagged"), "1")
    ledger.result(result("c", "failed"), "2")
    ledger.result(result("d", "failed"), "3")
    ledger.dead_letter("d")
    assert ledger.lost == ["b", "c", "e"]  # c has its failed result, but no dead letter
    assert ledger.ended == 2


def test_an_incomplete_result_does_not_end_an_event() -> None:
    ledger = ledger_of(a=ExpectedEnd.ANSWERED)
    ledger.result(result("a", "tagged", complete=False), "1")
    assert ledger.lost == ["a"]


def test_duplicates_may_differ_in_what_was_measured_and_in_nothing_else() -> None:
    ledger = ledger_of(a=ExpectedEnd.ANSWERED)
    for time in ("now", "then"):
        ledger.result(result("a", "tagged").replace(b"now", time.encode()), "1")
    assert (ledger.duplicates, ledger.differing_duplicates) == (1, 0)
    ledger.result(result("a", "tagged", tags=["another"]), "1")
    assert (ledger.duplicates, ledger.differing_duplicates) == (2, 1)


def test_what_was_never_published_and_what_ended_otherwise_than_expected_is_counted() -> None:
    ledger = ledger_of(good=ExpectedEnd.ANSWERED, bad=ExpectedEnd.FAILED)
    ledger.dead_letter("of another publisher")
    ledger.result(result("good", "failed"), "1")
    ledger.dead_letter("good")
    ledger.result(result("bad", "tagged"), "2")
    assert ledger.strangers == ["of another publisher"]
    assert ledger.blamed == 1
    assert ledger.misjudged == 1

"""The chaos run's plan depends on the seed only, and everything that can take part does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from worker.amqp.topology import Lane
from worker.diagnostics.chaos.schedule import MINIMUM_FAULTS, FaultKind, schedule
from worker.diagnostics.chaos.workload import ExpectedEnd, PlannedEvent, photographs_in, plan, tenants
from worker.errors import Misconfigured
from worker.messages import read_event

GOOGLE, MICROSOFT, SERVED = "http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"


def test_the_same_seed_gives_the_same_faults_and_another_one_others() -> None:
    assert schedule(1, 2000, FaultKind) == schedule(1, 2000, FaultKind)
    assert schedule(1, 2000, FaultKind) != schedule(2, 2000, FaultKind)


@pytest.mark.parametrize("events", [2000, 10_000])
def test_each_kind_of_fault_happens_at_least_ten_times_while_there_is_still_work(events: int) -> None:
    faults = schedule(3, events, FaultKind)
    counts = Counter(fault.kind for fault in faults)
    assert set(counts) == set(FaultKind)
    assert counts.pop(FaultKind.MODEL_DISABLED) == max(1, events // 2500)
    assert min(counts.values()) >= MINIMUM_FAULTS
    assert [fault.after_events for fault in faults] == sorted(fault.after_events for fault in faults)
    assert 0 < faults[0].after_events <= faults[-1].after_events <= events * 3 // 4


def test_a_short_run_has_fewer_faults_and_each_kind_that_is_asked_for() -> None:
    assert len(schedule(1, 100, [FaultKind.PARENT])) == 2
    assert {fault.kind for fault in schedule(1, 1, FaultKind)} == set(FaultKind)


def planned(folder: Path, events: int = 1000, *, seed: int = 1, everything: bool = True) -> list[PlannedEvent]:
    photographs = [folder / "cat.jpg", folder / "cup.jpg"]
    for file in photographs:
        file.write_bytes(b"\xff\xd8 as good as one for this test, " + file.name.encode() + b" \xff\xd9")
    taking_part = tenants(GOOGLE, MICROSOFT) if everything else tenants(None, None)
    known = {
        (tenant.name, file): dict.fromkeys(tenant.providers, file.stem)
        for tenant in taking_part
        if tenant.providers
        for file in photographs
    }
    (folder / "bad").mkdir(exist_ok=True)
    return plan(seed, events, taking_part, known, folder / "bad", SERVED if everything else None)


def test_the_same_seed_publishes_the_same_events_with_a_share_of_bad_ones(tmp_path: Path) -> None:
    events = planned(tmp_path)
    assert events == planned(tmp_path)
    assert events != planned(tmp_path, seed=2)
    assert len({event.event_id for event in events}) == 1000
    ends = Counter(event.expected.end for event in events)
    assert ends[ExpectedEnd.FAILED] + ends[ExpectedEnd.DEAD_LETTERED] == 50
    assert ends[ExpectedEnd.TAGGED] > 800


@pytest.mark.parametrize("events", [100, 1000])
def test_every_tenant_lane_and_way_to_carry_an_image_takes_part(tmp_path: Path, events: int) -> None:
    found = planned(tmp_path, events)
    assert {event.lane for event in found} == set(Lane)
    assert {event.kind for event in found} == {"path", "url", "base64", "body", "none"}
    assert {event.expected.instance for event in found} == {"local", "strict", "switched-off", "both", "cloud"}
    asked = {provider for event in found for provider in event.expected.labels}
    assert asked == {"tensorflow", "google_cloud_vision", "microsoft_vision"}
    # And each way goes through each tenant
    pairs = {(event.expected.instance, event.kind) for event in found if event.expected.end is ExpectedEnd.TAGGED}
    assert len(pairs) == 4 * 4


def test_without_stand_ins_the_rest_takes_part(tmp_path: Path) -> None:
    found = planned(tmp_path, 100, everything=False)
    assert {event.expected.instance for event in found} == {"local", "strict", "switched-off"}
    assert {event.kind for event in found if event.expected.end is ExpectedEnd.TAGGED} == {"path", "base64", "body"}


def test_what_is_published_is_the_event_that_is_expected(tmp_path: Path) -> None:
    for event in planned(tmp_path):
        message = event.message()
        if event.expected.end is ExpectedEnd.DEAD_LETTERED:
            with pytest.raises(ValueError, match="Unterminated"):
                json.loads(message.body)
            continue
        read = read_event(message.body, message.content_type, message.headers, event.event_id)
        assert (read.event.id, read.event.data.asset_id) == (event.event_id, event.expected.asset_id)
        assert read.event.data.instance == event.expected.instance
        assert read.event.data.content.kind == event.kind
        assert read.image_bytes == (event.content if isinstance(event.content, bytes) else None)


def test_a_directory_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no JPEG, PNG or WebP"):
        photographs_in(tmp_path)

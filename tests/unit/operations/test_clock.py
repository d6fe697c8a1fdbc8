"""A moment is written in one way: on the page, by commands, in dead letters and in messages for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import worker
from worker.operations.clock import written

OTHERS = {
    "worker/messages/reading.py": "an event's own time, as it is handed on",
    "worker/messages/results.py": "a result's time, for programs: it has milliseconds",
    "worker/cli/publish.py": "an event's time, for programs",
    "worker/providers/cloud/budget.py": "a month, the key of a counter",
    "worker/sources/aws_signature.py": "the time of a signature, for programs",
    "worker/connect/mapping.py": "the time of an upload as an event has it, for programs",
    "worker/settings/cursors.py": "where a listing begins, for another system",
    "worker/operations/clock.py": "this is the one way",
}
"""Modules that write a moment by themselves, each with what it is."""


def test_it_is_utc_to_the_second_whatever_the_zone() -> None:
    moment = datetime(2026, 5, 17, 14, 30, 15, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert written(moment) == "2026-05-17T12:30:15+00:00"
    assert datetime.fromisoformat(written(moment)) == moment.replace(microsecond=0).astimezone(UTC)


def test_nothing_else_writes_a_moment_for_people() -> None:
    package = Path(worker.__file__).parent
    own_way = re.compile(r"\bisoformat\(|strftime\(|\bctime\(|:%[YHdm]")
    found = {
        str(file.relative_to(package.parent))
        for file in package.rglob("*.py")
        if own_way.search(file.read_text(encoding="utf-8"))
    }
    assert found == OTHERS.keys()

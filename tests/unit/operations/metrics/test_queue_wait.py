"""The wait in the queue is taken from a time that can be one, and from nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from worker.messages.oddities import OddField
from worker.operations.metrics import Metrics, queue_wait
from worker.operations.metrics.events import POSSIBLE_ODDITIES

NOW = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
NOW_S = NOW.timestamp()


def test_the_exact_time_is_taken_within_the_second_in_which_the_message_was_sent() -> None:
    sent = NOW - timedelta(seconds=3.25)
    assert queue_wait(int(sent.timestamp()), sent, received_at_s=NOW_S) == (3.25, ())
    assert queue_wait(int(NOW_S) - 4, NOW - timedelta(days=400), received_at_s=NOW_S) == (4, ())


def test_without_a_time_nobody_knows_the_wait() -> None:
    assert queue_wait(None, None, received_at_s=NOW_S) == (None, ())
    assert queue_wait("yesterday", None, received_at_s=NOW_S) == (None, ())


def test_a_clock_that_is_ahead_is_no_wait() -> None:
    assert queue_wait(None, NOW + timedelta(hours=1), received_at_s=NOW_S) == (0, ())


@pytest.mark.parametrize(
    "uploaded_at",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, tzinfo=UTC),
        NOW + timedelta(days=1),
        datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=14))),
    ],
)
def test_a_time_before_2000_or_after_tomorrow_is_none(uploaded_at: datetime) -> None:
    odd = (OddField("time", "implausible"),)
    assert queue_wait(None, uploaded_at, received_at_s=NOW_S) == (None, odd)
    assert queue_wait(int(NOW_S) - 2, uploaded_at, received_at_s=NOW_S) == (2, odd)


@pytest.mark.parametrize("timestamp", [0, 1, int(NOW_S * 1000), 2**64 - 1, -5])
def test_a_timestamp_in_milliseconds_or_of_1970_is_none(timestamp: int) -> None:
    odd = (OddField("timestamp", "implausible"),)
    assert queue_wait(timestamp, None, received_at_s=NOW_S) == (None, odd)
    assert queue_wait(timestamp, NOW - timedelta(seconds=1), received_at_s=NOW_S) == (1, odd)


def test_each_oddity_is_counted_under_a_series_that_existed_before() -> None:
    metrics = Metrics()

    def series() -> dict[tuple[str, str], float]:
        (family,) = [each for each in metrics.registry.collect() if each.name == "autotag_odd_event_fields"]
        return {(each.labels["field"], each.labels["why"]): each.value for each in family.samples}

    before = series()
    assert set(before.values()) == {0}
    metrics.odd_fields(POSSIBLE_ODDITIES)
    assert series() == dict.fromkeys(before, 1)
    assert len(before) < 40

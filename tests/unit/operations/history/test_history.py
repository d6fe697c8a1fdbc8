"""The recent history: bounded, exact in its counts, and readable under load."""

from __future__ import annotations

import pytest

from worker.amqp.delivery import Ending
from worker.messages import ProviderReport, Result, Tag
from worker.operations.history import BUCKET_S, BUCKETS, EndedDelivery, History, State, Thumbnail
from worker.operations.history.failures import MAXIMUM_FAILURES
from worker.operations.history.results import MAXIMUM_RESULTS
from worker.operations.history.throughput import Throughput, percentile_s
from worker.operations.history.timeline import ChildTimeline
from worker.supervision.lifecycle import BecameDisabled, BecameReady, BecameStopped, Cause, Crashed, Relaunching

KILLED = Cause("killed", "killed by SIGKILL")


def result(asset_id: str = "a", status: str = "tagged", **more: object) -> Result:
    return Result(asset_id=asset_id, instance="default", event_id="e", status=status, **more)  # type: ignore[arg-type]


def ended(
    ending: Ending = Ending.ANSWERED, *, of: Result | None = None, took_s: float = 0.1, **more: object
) -> EndedDelivery:
    fields: dict[str, object] = {
        "ending": ending,
        "status": of.status if of else None,
        "reason": None,
        "message": None,
        "asset_id": of.asset_id if of else None,
        "instance": "default",
        "file_name": None,
        "result": of,
        "thumbnail": None,
        "took_s": took_s,
    }
    return EndedDelivery(**fields | more)  # type: ignore[arg-type]


# ── throughput ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery_is_counted_in_the_step_in_which_it_ended() -> None:
    throughput = Throughput()
    throughput.record(Ending.ANSWERED, "tagged", 0.1, 1000.0)
    throughput.record(Ending.ANSWERED, "tagged", 0.1, 1000.0 + BUCKET_S)
    throughput.record(Ending.DEAD_LETTERED, "failed", 0.1, 1000.0 + BUCKET_S)
    throughput.record(Ending.RETRIED, None, 0.1, 1000.0 + BUCKET_S)
    window = throughput.window(1000.0 + BUCKET_S)
    assert len(window) == BUCKETS
    assert [(each.answered, each.failed, each.put_off) for each in window[-2:]] == [(1, 0, 0), (1, 1, 1)]


def test_what_is_older_than_the_window_is_forgotten() -> None:
    throughput = Throughput()
    throughput.record(Ending.ANSWERED, "tagged", 0.1, 0.0)
    assert sum(each.answered for each in throughput.window(BUCKET_S * BUCKETS)) == 0
    for step in range(3 * BUCKETS):
        throughput.sample(1, 1, step * BUCKET_S)
    assert len(throughput._buckets) == BUCKETS


@pytest.mark.parametrize("seconds", [0.0005, 0.003, 0.04, 0.7, 9.0, 400.0])
def test_a_percentile_is_off_by_a_tenth_at_most(seconds: float) -> None:
    throughput = Throughput()
    for _ in range(100):
        throughput.record(Ending.ANSWERED, "tagged", seconds, 5.0)
    median_s = percentile_s(throughput.window(5.0), 0.5)
    assert median_s == pytest.approx(max(seconds, 0.001), rel=0.1, abs=0.0002)


def test_an_empty_step_has_no_time() -> None:
    assert Throughput().window(5.0)[-1].percentile_s(0.5) is None


def test_a_step_keeps_the_maximum_that_waited_and_unknown_stays_unknown() -> None:
    throughput = Throughput()
    throughput.sample(None, 2, 1.0)
    assert throughput.window(1.0)[-1].waiting is None
    throughput.sample(7, 1, 2.0)
    throughput.sample(3, 0, 3.0)
    assert (throughput.window(3.0)[-1].waiting, throughput.window(3.0)[-1].in_hand) == (7, 2)


# ── the model's timeline ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crash_shows_as_back_off_for_as_long_as_it_lasts_and_then_as_a_start() -> None:
    timeline = ChildTimeline(0.0)
    timeline.on_notice(BecameReady(), 1.0)
    timeline.on_notice(Crashed(KILLED, counted=True, relaunches_left=4), 10.0)
    timeline.on_notice(Relaunching(2.0), 10.0)
    timeline.on_notice(BecameReady(), 13.0)
    intervals = [(each.state, each.from_s, each.to_s) for each in timeline.intervals(0.0, 20.0)]
    assert intervals == [
        (State.STARTING, 0.0, 1.0),
        (State.RUNNING, 1.0, 10.0),
        (State.BACK_OFF, 10.0, 12.0),
        (State.STARTING, 12.0, 13.0),
        (State.RUNNING, 13.0, 20.0),
    ]


def test_a_planned_replacement_is_no_interruption() -> None:
    timeline = ChildTimeline(0.0)
    timeline.on_notice(BecameReady(), 1.0)
    assert timeline.on_notice(BecameReady(), 5.0) == ("replaced", "replaced as planned")
    timeline.on_notice(BecameStopped(), 6.0)
    assert [each.state for each in timeline.intervals(1.0, 10.0)] == [State.RUNNING]


def test_disabled_lasts_until_an_operator_resets() -> None:
    history = History(0.0)
    history.on_child_notice("model-1", BecameReady(), 1.0)
    history.on_child_notice("model-1", Crashed(KILLED, counted=True, relaunches_left=0), 2.0)
    history.on_child_notice("model-1", BecameDisabled(KILLED), 2.0)
    assert history.children["model-1"].state(50.0) is State.DISABLED
    history.on_operator_action("reset", 60.0)
    assert history.children["model-1"].state(60.0) is State.STARTING
    assert [each.kind for each in history.occurrences] == ["ready", "crash", "disabled", "operator"]


def test_crashes_of_decoders_are_not_recorded() -> None:
    history = History(0.0)
    history.on_child_notice("decoder-1", Crashed(KILLED, counted=False, relaunches_left=None), 1.0)
    assert not history.children
    assert not history.occurrences


def test_a_child_that_crashes_for_ever_takes_bounded_memory() -> None:
    history = History(0.0)
    for second in range(5000):
        history.on_child_notice(f"model-{second % 50}", Crashed(KILLED, counted=True, relaunches_left=1), float(second))
        history.on_child_notice(f"model-{second % 50}", BecameReady(), second + 0.5)
    assert len(history.children) == 8
    assert len(history.occurrences) == 60
    assert all(len(timeline._changes) <= 240 for timeline in history.children.values())


# ── results and failures ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_burst_is_shown_whole_and_a_flood_once_a_second() -> None:
    history = History(0.0)
    for number in range(MAXIMUM_RESULTS):
        history.on_delivery_ended(ended(of=result(f"burst-{number}")), 100.0, 0.0)
    assert [each.asset_id for each in history.results] == [f"burst-{n}" for n in reversed(range(MAXIMUM_RESULTS))]
    # When a thousand come in the ten seconds after it
    for number in range(1000):
        history.on_delivery_ended(ended(of=result(f"flood-{number}")), 100.0 + number / 100, 0.0)
    shown = [each for each in history.results if each.asset_id.startswith("flood")]
    assert 9 <= len(shown) <= 10
    # Then all of them are counted all the same
    assert sum(each.answered for each in history.throughput.window(110.0)) == 1000 + MAXIMUM_RESULTS


def test_a_result_keeps_the_best_tags_and_counts_all() -> None:
    history = History(0.0)
    tags = tuple(Tag(name=f"t{n}", confidence=1 - n / 100, provider="tensorflow") for n in range(50))
    history.on_delivery_ended(ended(of=result(tags=tags)), 1.0, 0.0)
    (recent,) = history.results
    assert [tag.name for tag in recent.tags] == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert recent.number_of_tags == 50


def test_long_names_are_truncated() -> None:
    history = History(0.0)
    history.on_delivery_ended(ended(of=result("x" * 1024), message="y" * 5000), 1.0, 0.0)
    (recent,) = history.results
    assert len(recent.asset_id) == 300


def test_a_thumbnail_outlives_its_result_for_a_while_and_no_longer() -> None:
    history = History(0.0)
    thumbnails = []
    for number in range(2 * MAXIMUM_RESULTS + 1):
        thumbnail = history.results.admit(number * 2.0)
        assert thumbnail is not None
        thumbnail.jpeg = b"jpeg"
        thumbnails.append(thumbnail)
        history.on_delivery_ended(ended(of=result(), thumbnail=thumbnail), number * 2.0, 0.0)
    assert len(list(history.results)) == MAXIMUM_RESULTS
    assert history.results.thumbnail(thumbnails[-1].number) == b"jpeg"
    assert history.results.thumbnail(thumbnails[1].number) == b"jpeg"
    assert history.results.thumbnail(thumbnails[0].number) is None
    assert history.results.thumbnail(999) is None


def test_equal_failures_are_one_entry_with_a_count() -> None:
    history = History(0.0)
    for second in range(5):
        failed = ended(Ending.DEAD_LETTERED, reason="image_truncated", message=f"no. {second}", asset_id=f"a{second}")
        history.on_delivery_ended(failed, float(second), 0.0)
    (failure,) = history.failures
    assert (failure.times, failure.asset_id, failure.message) == (5, "a4", "no. 4")
    assert (failure.first_s, failure.last_s) == (0.0, 4.0)


def test_the_latest_failure_comes_first_and_the_oldest_is_dropped() -> None:
    history = History(0.0)
    for number in range(MAXIMUM_FAILURES + 3):
        history.on_delivery_ended(ended(Ending.DEAD_LETTERED, reason=f"reason_{number}"), float(number), 0.0)
    reasons = [each.reason for each in history.failures]
    assert reasons == [f"reason_{n}" for n in reversed(range(3, MAXIMUM_FAILURES + 3))]


def test_a_provider_that_failed_is_recorded_although_the_event_was_answered() -> None:
    history = History(0.0)
    report = ProviderReport(name="microsoft_vision", status="failed", reason="credentials_refused", message="401")
    history.on_delivery_ended(ended(of=result(providers=(report,))), 1.0, 0.0)
    (failure,) = history.failures
    assert (failure.kind, failure.provider, failure.reason) == ("provider", "microsoft_vision", "credentials_refused")


def test_every_thumbnail_has_its_own_number() -> None:
    history = History(0.0)
    first, second = history.results.admit(0.0), history.results.admit(0.0)
    assert isinstance(first, Thumbnail)
    assert isinstance(second, Thumbnail)
    assert first.number != second.number

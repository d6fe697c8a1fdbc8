"""The record of the last while: bounded, exact where it counts, and readable under load."""

from __future__ import annotations

import pytest

from worker.messages import ProviderReport, Result, Tag
from worker.operations.history import BUCKET_S, BUCKETS, EndedDelivery, History, State, Thumbnail
from worker.operations.history.failures import MOST_FAILURES
from worker.operations.history.results import MOST_RESULTS
from worker.operations.history.throughput import Throughput, percentile_s
from worker.operations.history.timeline import ChildTimeline
from worker.supervision.lifecycle import BecameDisabled, BecameReady, BecameStopped, Cause, Crashed, Relaunching

KILLED = Cause("killed", "killed by SIGKILL")


def result(asset_id: str = "a", status: str = "tagged", **more: object) -> Result:
    return Result(asset_id=asset_id, instance="default", event_id="e", status=status, **more)  # type: ignore[arg-type]


def ended(ending: str = "answered", *, of: Result | None = None, took_s: float = 0.1, **more: object) -> EndedDelivery:
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


# ── work ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_is_counted_in_the_step_in_which_it_ended() -> None:
    throughput = Throughput()
    throughput.ended("answered", "tagged", 0.1, 1000.0)
    throughput.ended("answered", "tagged", 0.1, 1000.0 + BUCKET_S)
    throughput.ended("dead_lettered", "failed", 0.1, 1000.0 + BUCKET_S)
    throughput.ended("retried", None, 0.1, 1000.0 + BUCKET_S)
    window = throughput.window(1000.0 + BUCKET_S)
    assert len(window) == BUCKETS
    assert [(each.answered, each.failed, each.put_off) for each in window[-2:]] == [(1, 0, 0), (1, 1, 1)]


def test_what_is_older_than_the_window_is_forgotten() -> None:
    throughput = Throughput()
    throughput.ended("answered", "tagged", 0.1, 0.0)
    assert sum(each.answered for each in throughput.window(BUCKET_S * BUCKETS)) == 0
    for step in range(3 * BUCKETS):
        throughput.sampled(1, 1, step * BUCKET_S)
    assert len(throughput._buckets) == BUCKETS


@pytest.mark.parametrize("seconds", [0.0005, 0.003, 0.04, 0.7, 9.0, 400.0])
def test_a_percentile_is_off_by_a_tenth_at_most(seconds: float) -> None:
    throughput = Throughput()
    for _ in range(100):
        throughput.ended("answered", "tagged", seconds, 5.0)
    found = percentile_s(throughput.window(5.0), 0.5)
    assert found == pytest.approx(max(seconds, 0.001), rel=0.1, abs=0.0002)


def test_an_empty_step_has_no_time() -> None:
    assert Throughput().window(5.0)[-1].percentile_s(0.5) is None


def test_the_most_that_waited_in_a_step_is_kept_and_the_unknown_stays_unknown() -> None:
    throughput = Throughput()
    throughput.sampled(None, 2, 1.0)
    assert throughput.window(1.0)[-1].waiting is None
    throughput.sampled(7, 1, 2.0)
    throughput.sampled(3, 0, 3.0)
    assert (throughput.window(3.0)[-1].waiting, throughput.window(3.0)[-1].in_hand) == (7, 2)


# ── the model's life ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crash_shows_as_back_off_for_as_long_as_it_lasts_and_then_as_a_start() -> None:
    life = ChildTimeline(0.0)
    life.told(BecameReady(), 1.0)
    life.told(Crashed(KILLED, counted=True, relaunches_left=4), 10.0)
    life.told(Relaunching(2.0), 10.0)
    life.told(BecameReady(), 13.0)
    told = [(each.state, each.from_s, each.to_s) for each in life.intervals(0.0, 20.0)]
    assert told == [
        (State.STARTING, 0.0, 1.0),
        (State.RUNNING, 1.0, 10.0),
        (State.BACK_OFF, 10.0, 12.0),
        (State.STARTING, 12.0, 13.0),
        (State.RUNNING, 13.0, 20.0),
    ]


def test_a_planned_replacement_is_no_interruption() -> None:
    life = ChildTimeline(0.0)
    life.told(BecameReady(), 1.0)
    assert life.told(BecameReady(), 5.0) == ("replaced", "replaced as planned")
    life.told(BecameStopped(), 6.0)
    assert [each.state for each in life.intervals(1.0, 10.0)] == [State.RUNNING]


def test_disabled_lasts_until_an_operator_resets() -> None:
    history = History(0.0)
    history.child("model-1", BecameReady(), 1.0)
    history.child("model-1", Crashed(KILLED, counted=True, relaunches_left=0), 2.0)
    history.child("model-1", BecameDisabled(KILLED), 2.0)
    assert history.lives["model-1"].state(50.0) is State.DISABLED
    history.operator("reset", 60.0)
    assert history.lives["model-1"].state(60.0) is State.STARTING
    assert [each.kind for each in history.moments] == ["ready", "crash", "disabled", "operator"]


def test_the_deaths_of_decoders_are_not_told() -> None:
    history = History(0.0)
    history.child("decoder-1", Crashed(KILLED, counted=False, relaunches_left=None), 1.0)
    assert not history.lives
    assert not history.moments


def test_a_child_that_crashes_for_ever_fills_nothing() -> None:
    history = History(0.0)
    for second in range(5000):
        history.child(f"model-{second % 50}", Crashed(KILLED, counted=True, relaunches_left=1), float(second))
        history.child(f"model-{second % 50}", BecameReady(), second + 0.5)
    assert len(history.lives) == 8
    assert len(history.moments) == 60
    assert all(len(life._changes) <= 240 for life in history.lives.values())


# ── results and failures ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_burst_is_shown_whole_and_a_flood_once_a_second() -> None:
    history = History(0.0)
    for number in range(MOST_RESULTS):
        history.ended(ended(of=result(f"burst-{number}")), 100.0)
    assert [each.asset_id for each in history.results] == [f"burst-{n}" for n in reversed(range(MOST_RESULTS))]
    # When a thousand come in the ten seconds after it
    for number in range(1000):
        history.ended(ended(of=result(f"flood-{number}")), 100.0 + number / 100)
    shown = [each for each in history.results if each.asset_id.startswith("flood")]
    assert 9 <= len(shown) <= 10
    # Then all of them are counted all the same
    assert sum(each.answered for each in history.throughput.window(110.0)) == 1000 + MOST_RESULTS


def test_an_answer_keeps_the_best_tags_and_counts_all() -> None:
    history = History(0.0)
    tags = tuple(Tag(name=f"t{n}", confidence=1 - n / 100, provider="tensorflow") for n in range(50))
    history.ended(ended(of=result(tags=tags)), 1.0)
    (answer,) = history.results
    assert [tag.name for tag in answer.tags] == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert answer.number_of_tags == 50


def test_long_names_are_cut() -> None:
    history = History(0.0)
    history.ended(ended(of=result("x" * 1024), message="y" * 5000), 1.0)
    (answer,) = history.results
    assert len(answer.asset_id) == 300


def test_a_thumbnail_outlives_its_answer_for_a_while_and_no_longer() -> None:
    history = History(0.0)
    thumbnails = []
    for number in range(2 * MOST_RESULTS + 1):
        thumbnail = history.results.admit(number * 2.0)
        assert thumbnail is not None
        thumbnail.jpeg = b"jpeg"
        thumbnails.append(thumbnail)
        history.ended(ended(of=result(), thumbnail=thumbnail), number * 2.0)
    assert len(list(history.results)) == MOST_RESULTS
    assert history.results.thumbnail(thumbnails[-1].number) == b"jpeg"
    assert history.results.thumbnail(thumbnails[1].number) == b"jpeg"
    assert history.results.thumbnail(thumbnails[0].number) is None
    assert history.results.thumbnail(999) is None


def test_equal_troubles_are_one_entry_that_counts() -> None:
    history = History(0.0)
    for second in range(5):
        trouble = ended("dead_lettered", reason="image_truncated", message=f"no. {second}", asset_id=f"a{second}")
        history.ended(trouble, float(second))
    (failure,) = history.failures
    assert (failure.times, failure.asset_id, failure.message) == (5, "a4", "no. 4")
    assert (failure.first_s, failure.last_s) == (0.0, 4.0)


def test_the_latest_trouble_comes_first_and_the_oldest_goes() -> None:
    history = History(0.0)
    for number in range(MOST_FAILURES + 3):
        history.ended(ended("dead_lettered", reason=f"reason_{number}"), float(number))
    reasons = [each.reason for each in history.failures]
    assert reasons == [f"reason_{n}" for n in reversed(range(3, MOST_FAILURES + 3))]


def test_a_provider_that_failed_is_told_although_the_event_was_answered() -> None:
    history = History(0.0)
    report = ProviderReport(name="microsoft_vision", status="failed", reason="credentials_refused", message="401")
    history.ended(ended(of=result(providers=(report,))), 1.0)
    (failure,) = history.failures
    assert (failure.kind, failure.who, failure.reason) == ("provider", "microsoft_vision", "credentials_refused")


def test_a_picture_is_numbered_once() -> None:
    history = History(0.0)
    first, second = history.results.admit(0.0), history.results.admit(0.0)
    assert isinstance(first, Thumbnail)
    assert isinstance(second, Thumbnail)
    assert first.number != second.number

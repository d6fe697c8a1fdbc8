"""One event, one set of settings: a reload in the middle of an event changes nothing about how it ends."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, cast

import pika
import pytest

from worker.amqp.broker import Broker
from worker.amqp.delivery import ATTEMPT_HEADER, Delivery, Ending
from worker.amqp.errors import Unpublishable, Unroutable
from worker.amqp.in_hand import DEFERRALS_HEADER, InHand, lane_prefetch
from worker.amqp.origin import ORIGIN_HEADER, UNKNOWN
from worker.amqp.topology import Lane
from worker.engine import Active, Engine
from worker.errors import CannotBeDone, ResourceExhausted, TryLater, Unavailable
from worker.images.content import Content
from worker.messages import EVENT_TYPE, ImageFacts, OutgoingMessage, ProviderReport, Result
from worker.messages.results import result_id
from worker.operations.health.intake import Intake
from worker.operations.history import History
from worker.operations.history.thumbnails import Thumbnails
from worker.operations.metrics import Metrics
from worker.pipeline import ANSWERS_HEADER, Pipeline
from worker.providers.base import Suggestion
from worker.providers.replies import AskAgain, ProviderReplies, Reply, pack, unpack
from worker.settings import Settings, settings_digest
from worker.supervision.shares import OVER_SHARE
from worker.tagging.results import Subject
from worker.tagging.tagger import NotAllAsked, Tagged, Tagger

OLD = Settings.model_validate(
    {"retry": {"maximum_number_of_attempts": 2}, "defaults": {"tensorflow": {"enabled": True}}}
)
NEW = OLD.model_copy(
    update={
        "maximum_number_of_tags_per_asset": 3,
        "retry": OLD.retry.model_copy(update={"maximum_number_of_attempts": 5}),
    }
)
DOWN = Reply("slow", "unavailable", reason="service_failed", message="HTTP 503", ask_again=AskAgain.LATER)
UNTRIED = Reply("full", "unavailable", reason="rate_limit", ask_again=AskAgain.LATER, after_s=3, counted=False)
ANSWERED = Reply("tensorflow", "ok", model="model@1")
FACTS = ImageFacts(format="JPEG", width=4, height=3, sha256="a" * 64)


@dataclass
class FakeBroker:
    """Takes everything, and keeps it."""

    published: list[OutgoingMessage] = field(default_factory=list)
    retried: list[dict[str, object]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    lanes_to_reject: frozenset[Lane] = frozenset({Lane.LIVE})
    fails: dict[str, list[Exception]] = field(default_factory=dict)
    """What its methods raise at their next calls, by name."""

    def _fail(self, method: str) -> None:
        if self.fails.get(method):
            raise self.fails[method].pop(0)

    def can_reject(self, lane: Lane) -> bool:
        return lane in self.lanes_to_reject

    async def publish_result(self, message: OutgoingMessage) -> None:
        self._fail("publish_result")
        self.published.append(message)

    async def retry_later(self, _delivery: Delivery, **how: object) -> float:
        self._fail("retry_later")
        self.retried.append(how)
        return 0.0

    async def dead_letter(self, _delivery: Delivery, reason: str, _message: str, **_who: object) -> None:
        self._fail("dead_letter")
        self.dead.append(reason)


ORIGIN: dict[str, object] = {ORIGIN_HEADER: UNKNOWN.as_header("default")}
"""What every event carries on; these have come from nowhere."""


class FakeIntake:
    """Events are taken, or not."""

    closed = False

    async def is_closed(self, lane: Lane) -> bool:
        return self.closed and lane is Lane.LIVE


class FakeSettler:
    """The channel of the deliveries. What becomes of them is kept."""

    is_open = True

    def __init__(self) -> None:
        self.settled: list[str] = []

    def ack(self, _tag: int) -> None:
        self.settled.append("ack")

    def requeue(self, _tag: int) -> None:
        self.settled.append("requeue")

    def reject(self, _tag: int) -> None:
        self.settled.append("reject")


class FakeEngine:
    """Its providers are always on; what becomes of an image is `outcome`'s affair."""

    def __init__(self, outcome: Callable[..., Awaitable[Tagged]]) -> None:
        self.providers = tuple(
            SimpleNamespace(name=name, enabled=lambda _instance: True) for name in ("tensorflow", "slow")
        )
        self.sources = SimpleNamespace(open_content=self._open)
        without_image = Tagger(cast("Any", None), cast("Any", self.providers), Metrics()).without_image
        self.tagger = SimpleNamespace(
            tag=outcome, who_waits=self._who_waits, not_asked=self._not_asked, without_image=without_image
        )
        self.decoders = SimpleNamespace(waiting=0)
        self.shadow = None
        self.nobody_can_be_asked: TryLater | None = None
        self.opened = 0
        self.not_asked = 0

    def _not_asked(self, *_: object) -> None:
        self.not_asked += 1

    def _who_waits(self, *_: object) -> tuple[Reply, ...]:
        if self.nobody_can_be_asked is not None:
            raise self.nobody_can_be_asked
        return ()

    async def _open(self, *_: object) -> Content:
        self.opened += 1
        return Content.from_bytes(b"an image", "test")


class Reloading:
    """A pipeline with the active settings beside it, which the test swaps while an event is in hand."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        history = History(time.monotonic())
        self.intake = FakeIntake()
        self.settler = FakeSettler()
        self.pipeline = Pipeline(
            cast("Broker", self.broker),
            Metrics(),
            history,
            Thumbnails(history, enabled=False),
            cast("Intake", self.intake),
            InHand(lane_prefetch(64)),
        )
        self.active = Active(OLD, cast("Engine", FakeEngine(self.tag)))
        self.outcome: Callable[..., Awaitable[Tagged]] | None = None

    async def tag(self, subject: Subject, *_: object, **options: Any) -> Tagged:
        assert self.outcome is not None
        return await self.outcome(subject, **options)

    def reload(self) -> None:
        self.active = Active(NEW, self.active.engine)

    async def handle(self, attempt: int = 1, headers: dict[str, object] | None = None) -> Ending:
        event = {
            "specversion": "1.0",
            "id": "event-1",
            "source": "/dms",
            "type": EVENT_TYPE,
            "data": {"asset_id": "asset-1", "content": {"path": "a.jpg"}},
        }
        delivery = Delivery(
            json.dumps(event).encode(),
            pika.BasicProperties(
                content_type="application/cloudevents+json", headers={ATTEMPT_HEADER: attempt} | (headers or {})
            ),
            Lane.LIVE,
            tag=1,
            redelivered=False,
            received_at_s=time.monotonic(),
            _settler=cast("Any", self.settler),
        )
        return await self.pipeline.handle(delivery, self.active)

    def digests(self) -> set[str]:
        """Which settings the published results were made under, found out from their ids."""
        found = set()
        for message in self.broker.published:
            data = json.loads(message.body)["data"]
            known = {"asset_id", "instance", "event_id", "status", "reason", "message", "complete"}
            result = Result(
                **{name: value for name, value in data.items() if name in known},
                providers=tuple(ProviderReport(**report) for report in data["providers"]),
                image=ImageFacts(**data["image"]) if data["image"] else None,
            )
            for name, settings in (("old", OLD), ("new", NEW)):
                if str(result_id(result, "/dms", settings_digest(settings, settings.defaults))) == message.message_id:
                    found.add(name)
        return found


@pytest.fixture
def it() -> Reloading:
    return Reloading()


def made(subject: Subject, *replies: Reply, status: str = "tagged") -> Tagged:
    known = ProviderReplies(replies, ImageFacts(format="JPEG", width=1, height=1, sha256="0" * 64))
    result = Result(
        asset_id=subject.asset_id,
        instance=subject.instance,
        event_id=subject.event_id,
        status=cast("Any", status),
        providers=tuple(reply.report() for reply in replies),
        complete=not known.pending,
        image=known.facts,
    )
    return Tagged(result, known, ())


def test_the_two_settings_of_these_tests_have_different_digests() -> None:
    assert settings_digest(OLD, OLD.defaults) != settings_digest(NEW, NEW.defaults)


async def test_a_failure_after_a_reload_is_published_under_the_settings_of_the_beginning(it: Reloading) -> None:
    # Given an event whose image turns out to be broken after the settings were reloaded
    async def broken(_subject: Subject, **_: object) -> Tagged:
        it.reload()
        raise CannotBeDone("it is broken", reason="image_corrupt")

    it.outcome = broken
    # When it ends
    assert await it.handle() is Ending.DEAD_LETTERED
    # Then its result has the digest of the settings that it began with
    assert it.digests() == {"old"}
    # And the next event has that of the new ones
    assert await it.handle() is Ending.DEAD_LETTERED
    assert it.digests() == {"old", "new"}


async def test_all_results_of_one_event_carry_one_digest_over_a_reload(it: Reloading) -> None:
    # Given an event that has published the tags that were there, when the settings are reloaded
    async def half(subject: Subject, **options: Any) -> Tagged:
        so_far = made(subject, ANSWERED, DOWN)
        await options["on_partial"](so_far.result, so_far.replies)
        it.reload()
        return made(subject, ANSWERED, Reply("slow", "failed", reason="service_failed", message="HTTP 400"))

    it.outcome = half
    assert await it.handle() is Ending.ANSWERED
    assert len(it.broker.published) == 2
    assert it.digests() == {"old"}


async def test_a_partial_result_and_the_failure_that_follows_carry_one_digest(it: Reloading) -> None:
    async def failing(subject: Subject, **options: Any) -> Tagged:
        so_far = made(subject, ANSWERED, DOWN)
        await options["on_partial"](so_far.result, so_far.replies)
        it.reload()
        raise RuntimeError("a fault of ours")

    it.outcome = failing
    # The last attempt by the settings of the beginning: under the new ones three more would follow.
    assert await it.handle(attempt=2) is Ending.DEAD_LETTERED
    assert it.broker.retried == []
    assert len(it.broker.published) == 2
    assert it.digests() == {"old"}


async def test_the_number_of_attempts_is_that_of_the_beginning(it: Reloading) -> None:
    async def down(_subject: Subject, **_: object) -> Tagged:
        it.reload()
        raise TryLater("the disk is slow", reason="content_unreachable")

    it.outcome = down
    assert await it.handle(attempt=2) is Ending.DEAD_LETTERED
    assert it.broker.dead == ["content_unreachable"]
    assert it.digests() == {"old"}
    # And for an event that begins after the reload that of the new settings
    assert await it.handle(attempt=2) is Ending.RETRIED


async def test_what_is_published_before_a_retry_carries_the_digest_of_the_beginning(it: Reloading) -> None:
    async def incomplete(subject: Subject, **_: object) -> Tagged:
        it.reload()
        return made(subject, ANSWERED, DOWN)

    it.outcome = incomplete
    assert await it.handle() is Ending.RETRIED
    assert it.digests() == {"old"}
    assert len(it.broker.retried) == 1


async def test_an_unreadable_event_with_an_asset_is_answered_under_the_settings_of_the_beginning(
    it: Reloading, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import pipeline
    from worker.messages import UnreadableEvent

    def reads(*_: object) -> object:
        it.reload()
        raise UnreadableEvent("no content", reason="event_invalid", asset_id="asset-1", event_id="event-1")

    monkeypatch.setattr(pipeline, "read_event", reads)
    assert await it.handle() is Ending.DEAD_LETTERED
    message = it.broker.published[0]
    result = Result(
        asset_id="asset-1",
        instance="default",
        event_id="event-1",
        status="failed",
        reason="event_invalid",
        message="no content",
    )
    assert message.message_id == str(result_id(result, None, settings_digest(OLD, OLD.defaults)))


async def test_at_the_last_attempt_an_event_still_waits_for_an_operator(it: Reloading) -> None:
    """One provider is down, another is suspended, none has answered: that is no failure of the event."""

    async def suspended(_subject: Subject, **options: Any) -> Tagged:
        assert options["last_attempt"]
        raise Unavailable("off cannot answer", reason="budget_exhausted", after_s=3600)

    it.outcome = suspended
    assert await it.handle(attempt=2) is Ending.RETRIED
    (retry,) = it.broker.retried
    assert (retry["at_least_s"], retry["counted"]) == (3600, False)
    assert it.broker.dead == []


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the pipeline, which end at once."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("worker.pipeline.asyncio.sleep", sleep)
    return pauses


NO_DESCRIPTOR = OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("error", [NO_DESCRIPTOR, ResourceExhausted("no descriptor"), MemoryError()])
async def test_a_machine_that_has_run_out_costs_no_attempt_and_the_event_is_answered_when_it_has_more(
    it: Reloading, no_pause: list[float], error: Exception
) -> None:
    failures = 3

    async def short_of_descriptors(subject: Subject, **_: object) -> Tagged:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise error
        return made(subject, ANSWERED)

    it.outcome = short_of_descriptors
    # At its last attempt, so that one more that counted would be the end of it
    assert await it.handle(attempt=2) is Ending.ANSWERED
    assert no_pause == [1, 2, 4]
    assert (it.broker.retried, it.broker.dead) == ([], [])


async def test_a_machine_that_stays_short_has_the_event_wait_uncounted(it: Reloading, no_pause: list[float]) -> None:
    async def short_of_descriptors(_subject: Subject, **_: object) -> Tagged:
        raise NO_DESCRIPTOR

    it.outcome = short_of_descriptors
    assert await it.handle(attempt=2) is Ending.RETRIED
    assert no_pause == [1, 2, 4, 8, 16]
    (retry,) = it.broker.retried
    assert (retry["counted"], retry["headers"]) == (False, ORIGIN)
    assert it.broker.dead == []


async def test_what_others_have_answered_is_kept_while_one_could_not_be_asked(
    it: Reloading, no_pause: list[float]
) -> None:
    unasked = Reply("slow", "unavailable", message="Too many open files", ask_again=AskAgain.SOON)
    asked_with: list[set[str]] = []

    async def one_is_not_asked(_subject: Subject, **options: Any) -> Tagged:
        asked_with.append({reply.provider for reply in options["earlier"].replies})
        raise NotAllAsked(ProviderReplies((ANSWERED, unasked), FACTS))

    it.outcome = one_is_not_asked
    assert await it.handle() is Ending.RETRIED
    assert asked_with == [set(), *[{"tensorflow"}] * 5]
    (retry,) = it.broker.retried
    header = cast("dict[str, object]", retry["headers"])[ANSWERS_HEADER]
    assert unpack(header) == ProviderReplies((ANSWERED,), FACTS)
    assert retry["counted"] is False


@pytest.mark.parametrize(
    ("pending", "counted", "at_least_s"), [((DOWN,), True, 0), ((UNTRIED,), False, 3), ((DOWN, UNTRIED), True, 3)]
)
async def test_waiting_for_a_limit_of_our_own_is_no_attempt(
    it: Reloading, pending: tuple[Reply, ...], counted: bool, at_least_s: float
) -> None:
    async def some_are_pending(subject: Subject, **_: object) -> Tagged:
        return made(subject, ANSWERED, *pending)

    it.outcome = some_are_pending
    assert await it.handle() is Ending.RETRIED
    (retry,) = it.broker.retried
    assert (retry["counted"], retry["at_least_s"]) == (counted, at_least_s)


async def test_while_nobody_can_be_asked_no_image_is_fetched_and_no_attempt_counted(it: Reloading) -> None:
    engine = cast("Any", it.active.engine)
    engine.nobody_can_be_asked = TryLater("not its turn", reason="rate_limit", after_s=60, counted=False)
    # At its last attempt, so that one more that counted would be the end of it
    assert await it.handle(attempt=2) is Ending.RETRIED
    (retry,) = it.broker.retried
    assert (retry["counted"], retry["at_least_s"], engine.opened) == (False, 60, 0)
    assert it.broker.dead == []


async def test_an_event_over_its_instances_share_is_put_off_uncounted_before_anything_is_done_for_it() -> None:
    # Given an instance, one of several, that has its share in hand
    in_hand, it = InHand(lane_prefetch(4)), Reloading()
    in_hand.know(["default", "other"])
    it.pipeline._in_hand = in_hand
    with await in_hand.take(Lane.LIVE, "default"), await in_hand.take(Lane.LIVE, "default"):
        # When another of its events comes, for the last time that it may be tried
        ending = await it.handle(attempt=1000)
    # Then it returns after a while, as the same attempt; it was not tagged, which would have failed
    assert ending is Ending.RETRIED
    (how,) = it.broker.retried
    assert (how["counted"], how["headers"]) == (False, ORIGIN | {DEFERRALS_HEADER: 1})
    assert 0 < cast("float", how["exactly_s"]) <= 60
    assert it.broker.published == []
    assert it.broker.dead == []


async def test_an_event_over_its_instances_share_of_the_fetches_is_put_off_in_the_same_way() -> None:
    async def over_share(*_: object, **__: object) -> Tagged:
        raise TryLater("its fetches are all taken", reason=OVER_SHARE, counted=False)

    it = Reloading()
    it.outcome = over_share
    assert await it.handle(attempt=1000) is Ending.RETRIED
    (how,) = it.broker.retried
    assert (how["counted"], how["headers"]) == (False, ORIGIN | {DEFERRALS_HEADER: 1})
    assert it.broker.dead == []


async def test_when_an_image_cannot_be_fetched_the_providers_that_were_to_be_asked_learn_of_it() -> None:
    it = Reloading()

    async def missing(*_: object) -> Content:
        raise TryLater("the host is away", reason="source_unreachable")

    engine = cast("Any", it.active.engine)
    engine.sources.open_content = missing
    assert await it.handle(attempt=1) is Ending.RETRIED
    assert engine.not_asked == 1


# ── what has been answered is never lost ─────────────────────────────────────────────────────────────────────────────

SEEN = ImageFacts(format="JPEG", width=4, height=3, sha256=hashlib.sha256(b"an image").hexdigest())
TAGS = Reply("tensorflow", "ok", (Suggestion("cat", 0.9), Suggestion("sofa", 0.7)), "model@1")


def answered_before(facts: ImageFacts = SEEN) -> dict[str, object]:
    """The headers of an event that was answered by one of its two providers at an earlier attempt."""
    return {ANSWERS_HEADER: pack(ProviderReplies((TAGS,), facts))}


@pytest.mark.parametrize(
    "error",
    [
        TryLater("no such file", reason="content_missing"),
        CannotBeDone("the file is empty", reason="content_empty"),
        CannotBeDone("it killed its decoder twice", reason="image_killed_decoder"),
        RuntimeError("a fault of ours"),
    ],
    ids=["a file that has vanished", "a file that cannot be used", "a decoder that dies", "a fault of ours"],
)
async def test_whatever_goes_wrong_at_the_last_attempt_the_tags_of_earlier_ones_are_the_answer(
    it: Reloading, error: Exception
) -> None:
    async def fails(*_: object, **__: object) -> Tagged:
        raise error

    it.outcome = fails
    assert await it.handle(attempt=2, headers=answered_before()) is Ending.ANSWERED
    (message,) = it.broker.published
    data = json.loads(message.body)["data"]
    assert (data["status"], data["complete"], [tag["name"] for tag in data["tags"]]) == (
        "tagged",
        True,
        ["cat", "sofa"],
    )
    assert data["image"]["sha256"] == SEEN.sha256
    # And the other provider is named with what kept it from being asked
    other = {report["name"]: report for report in data["providers"]}["slow"]
    assert (other["status"], other["reason"]) == ("failed", getattr(error, "reason", "internal_error"))
    assert (it.broker.dead, it.settler.settled) == ([], ["ack"])


async def test_an_image_that_has_changed_and_cannot_be_read_has_no_use_for_old_tags(it: Reloading) -> None:
    async def broken(*_: object, **__: object) -> Tagged:
        raise CannotBeDone("it is broken", reason="image_corrupt")

    it.outcome = broken
    assert await it.handle(attempt=2, headers=answered_before(FACTS)) is Ending.DEAD_LETTERED
    assert [json.loads(message.body)["data"]["status"] for message in it.broker.published] == ["failed"]


async def test_answers_are_carried_through_every_further_retry(it: Reloading) -> None:
    async def fails(*_: object, **__: object) -> Tagged:
        raise TryLater("the disk is slow", reason="content_unreachable")

    it.outcome = fails
    assert await it.handle(headers=answered_before()) is Ending.RETRIED
    (retry,) = it.broker.retried
    assert unpack(cast("dict[str, object]", retry["headers"])[ANSWERS_HEADER]) == ProviderReplies((TAGS,), SEEN)


async def test_a_gate_that_has_closed_since_does_not_take_tags_back(it: Reloading) -> None:
    off = OLD.model_copy(update={"enabled": False})
    it.active = Active(off, it.active.engine)
    assert await it.handle(attempt=2, headers=answered_before()) is Ending.ANSWERED
    (message,) = it.broker.published
    assert json.loads(message.body)["data"]["status"] == "tagged"


async def test_answers_of_this_attempt_travel_with_an_event_that_is_put_off(
    it: Reloading, no_pause: list[float]
) -> None:
    # Given a provider that has answered, and another that could not be asked at once
    unasked = Reply("slow", "unavailable", message="Too many open files", ask_again=AskAgain.SOON)
    attempts = iter([NotAllAsked(ProviderReplies((TAGS, unasked), SEEN)), TryLater("full", reason=OVER_SHARE)])

    async def outcome(*_: object, **__: object) -> Tagged:
        raise next(attempts)

    it.outcome = outcome
    # When the instance is over its share at the next try
    assert await it.handle() is Ending.RETRIED
    # Then the answer is not lost
    (retry,) = it.broker.retried
    assert unpack(cast("dict[str, object]", retry["headers"])[ANSWERS_HEADER]) == ProviderReplies((TAGS,), SEEN)


async def test_a_result_without_a_queue_keeps_its_answers_and_does_not_come_back_at_once(it: Reloading) -> None:
    it.broker.fails = {"publish_result": [Unroutable("no queue")]}

    async def tagged(subject: Subject, **_: object) -> Tagged:
        return made(subject, TAGS)

    it.outcome = tagged
    assert await it.handle(attempt=2) is Ending.RETRIED
    (retry,) = it.broker.retried
    assert (retry["counted"], retry["at_least_s"]) == (False, 60)
    carried = unpack(cast("dict[str, object]", retry["headers"])[ANSWERS_HEADER])
    assert [reply.provider for reply in carried.replies] == ["tensorflow"]


# ── no delivery is left unsettled ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["publish_result", "retry_later"])
@pytest.mark.parametrize(
    "fault",
    [RecursionError("headers within headers"), Unpublishable("too large", reason="message_too_large")],
    ids=["a fault of ours", "a message that RabbitMQ does not take"],
)
async def test_an_event_that_cannot_be_ended_as_it_should_becomes_a_dead_letter(
    it: Reloading, method: str, fault: Exception
) -> None:
    # Given that neither result nor retry can be published, ever
    it.broker.fails = {"publish_result": [fault] * 9, "retry_later": [fault] * 9}

    async def outcome(subject: Subject, **_: object) -> Tagged:
        if method == "publish_result":
            return made(subject, ANSWERED)
        raise TryLater("the disk is slow", reason="content_unreachable")

    it.outcome = outcome
    assert await it.handle() is Ending.DEAD_LETTERED
    assert it.broker.dead == [getattr(fault, "reason", "internal_error")]
    assert it.settler.settled == ["ack"]


async def test_an_event_that_is_too_large_for_a_retry_is_answered_as_failed_once(it: Reloading) -> None:
    it.broker.fails = {"retry_later": [Unpublishable("too large", reason="message_too_large")]}

    async def outcome(*_: object, **__: object) -> Tagged:
        raise TryLater("the disk is slow", reason="content_unreachable")

    it.outcome = outcome
    assert await it.handle() is Ending.DEAD_LETTERED
    (message,) = it.broker.published
    data = json.loads(message.body)["data"]
    assert (data["status"], data["reason"]) == ("failed", "message_too_large")
    assert it.broker.dead == ["message_too_large"]


async def test_an_event_whose_lane_has_no_retry_queue_is_held_until_it_has_one(
    it: Reloading, no_pause: list[float]
) -> None:
    it.broker.fails = {"retry_later": [Unroutable("no retry queue is bound") for _ in range(4)]}

    async def fails(*_: object, **__: object) -> Tagged:
        raise TryLater("the disk is slow", reason="content_unreachable")

    it.outcome = fails
    assert await it.handle() is Ending.RETRIED
    assert (no_pause, it.settler.settled, it.broker.dead) == ([1, 2, 4], ["ack"], [])


async def test_where_not_even_a_dead_letter_can_be_published_rabbitmq_is_asked_to_move_the_event(it: Reloading) -> None:
    fault = RecursionError("headers within headers")
    it.broker.fails = {name: [fault] * 9 for name in ("publish_result", "retry_later", "dead_letter")}

    async def tagged(subject: Subject, **_: object) -> Tagged:
        return made(subject, ANSWERED)

    it.outcome = tagged
    assert await it.handle() is Ending.DEAD_LETTERED
    assert it.settler.settled == ["reject"]


async def test_where_rabbitmq_would_drop_the_event_it_is_held_until_it_can_be_set_aside(
    it: Reloading, no_pause: list[float]
) -> None:
    fault = RecursionError("headers within headers")
    it.broker.lanes_to_reject = frozenset({Lane.BULK})
    it.broker.fails = {"publish_result": [fault] * 2, "dead_letter": [fault] * 5}

    async def tagged(subject: Subject, **_: object) -> Tagged:
        return made(subject, ANSWERED)

    it.outcome = tagged
    it.broker.fails["retry_later"] = [fault]
    assert await it.handle() is Ending.DEAD_LETTERED
    assert (it.broker.dead, it.settler.settled) == (["internal_error"], ["ack"])
    assert no_pause == [1, 2, 4, 8, 16]


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("closed", "deliveries", "ending", "settled"),
    [
        (True, 0, Ending.REQUEUED, "requeue"),
        (True, 10, Ending.RETRIED, "ack"),
        (False, 0, Ending.RETRIED, "ack"),
    ],
    ids=["where the others are", "published again, so that RabbitMQ counts from 0", "in a retry queue"],
)
async def test_an_event_that_nobody_can_tag_now_waits(
    it: Reloading, closed: bool, deliveries: int, ending: Ending, settled: str
) -> None:
    async def nobody(*_: object, **__: object) -> Tagged:
        raise Unavailable("the model is disabled", reason="model_disabled")

    it.outcome = nobody
    it.intake.closed = closed
    assert await it.handle(attempt=2, headers={"x-delivery-count": deliveries}) is ending
    assert it.settler.settled == [settled]
    assert [retry["counted"] for retry in it.broker.retried] == ([False] if ending is Ending.RETRIED else [])
    assert (it.broker.dead, it.broker.published) == ([], [])


@pytest.mark.parametrize(("setting", "ending"), [("wait", Ending.REQUEUED), ("skip", Ending.ANSWERED)])
async def test_an_event_that_came_before_the_last_provider_was_switched_off_is_not_skipped_unless_asked_for(
    it: Reloading, setting: Literal["wait", "skip"], ending: Ending
) -> None:
    engine = it.active.engine
    engine.providers = ()
    it.active = Active(Settings(while_nothing_is_switched_on=setting), engine)
    it.intake.closed = True
    assert await it.handle() is ending
    assert len(it.broker.published) == (ending is Ending.ANSWERED)


async def test_a_delivery_that_is_called_off_is_not_settled(it: Reloading) -> None:
    begun = asyncio.Event()

    async def hangs(*_: object, **__: object) -> Tagged:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    it.outcome = hangs
    task = asyncio.create_task(it.handle())
    await begun.wait()
    it.settler.is_open = False
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (it.settler.settled, it.broker.published, it.broker.retried) == ([], [], [])

"""One event, one set of settings: a reload in the middle of an event changes nothing about how it ends."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pika
import pytest

from worker.amqp.broker import Broker
from worker.amqp.delivery import ATTEMPT_HEADER, Delivery, Ending
from worker.amqp.in_hand import DEFERRALS_HEADER, InHand, lane_prefetch
from worker.amqp.topology import Lane
from worker.engine import Active, Engine
from worker.errors import CannotBeDone, ResourceExhausted, TryLater, Unavailable
from worker.images.content import Content
from worker.messages import EVENT_TYPE, ImageFacts, OutgoingMessage, ProviderReport, Result
from worker.messages.results import result_id
from worker.operations.history import History
from worker.operations.history.thumbnails import Thumbnails
from worker.operations.metrics import Metrics
from worker.pipeline import ANSWERS_HEADER, Pipeline
from worker.providers.replies import AskAgain, ProviderReplies, Reply, unpack
from worker.settings import Settings, settings_digest
from worker.supervision.shares import OVER_SHARE
from worker.tagging.results import Subject
from worker.tagging.tagger import NotAllAsked, Tagged

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
ANSWERED = Reply("tensorflow", "ok", model="model@1")


@dataclass
class FakeBroker:
    """Takes everything, and keeps it."""

    published: list[OutgoingMessage] = field(default_factory=list)
    retried: list[dict[str, object]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    state: Any = field(default_factory=lambda: SimpleNamespace(paused=frozenset()))

    async def publish_result(self, message: OutgoingMessage) -> None:
        self.published.append(message)

    async def retry_later(self, _delivery: Delivery, **how: object) -> float:
        self.retried.append(how)
        return 0.0

    async def dead_letter(self, _delivery: Delivery, reason: str, _message: str, **_who: object) -> None:
        self.dead.append(reason)


class FakeEngine:
    """Its providers are always on; what becomes of an image is `outcome`'s affair."""

    def __init__(self, outcome: Callable[..., Awaitable[Tagged]]) -> None:
        self.providers = (SimpleNamespace(name="tensorflow", enabled=lambda _instance: True),)
        self.sources = SimpleNamespace(open_content=self._open)
        self.tagger = SimpleNamespace(tag=outcome)
        self.decoders = SimpleNamespace(waiting=0)

    async def _open(self, *_: object) -> Content:
        return Content.from_bytes(b"an image", "test")


class Reloading:
    """A pipeline with the active settings beside it, which the test swaps while an event is in hand."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        history = History(time.monotonic())
        self.pipeline = Pipeline(cast("Broker", self.broker), Metrics(), history, Thumbnails(history, enabled=False))
        self.active = Active(OLD, cast("Engine", FakeEngine(self.tag)))
        self.outcome: Callable[..., Awaitable[Tagged]] | None = None

    async def tag(self, subject: Subject, *_: object, **options: Any) -> Tagged:
        assert self.outcome is not None
        return await self.outcome(subject, **options)

    def reload(self) -> None:
        self.active = Active(NEW, self.active.engine)

    async def handle(self, attempt: int = 1) -> Ending:
        event = {
            "specversion": "1.0",
            "id": "event-1",
            "source": "/dms",
            "type": EVENT_TYPE,
            "data": {"asset_id": "asset-1", "content": {"path": "a.jpg"}},
        }
        delivery = Delivery(
            json.dumps(event).encode(),
            pika.BasicProperties(content_type="application/cloudevents+json", headers={ATTEMPT_HEADER: attempt}),
            Lane.LIVE,
            tag=1,
            redelivered=False,
            received_at_s=time.monotonic(),
            _settler=cast("Any", SimpleNamespace(is_open=True, ack=lambda _tag: None, requeue=lambda _tag: None)),
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
    result = Result(asset_id="asset-1", instance="default", event_id="event-1", status="failed", reason="event_invalid")
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
    assert (retry["counted"], retry["headers"]) == (False, None)
    assert it.broker.dead == []


async def test_what_others_have_answered_is_kept_while_one_could_not_be_asked(
    it: Reloading, no_pause: list[float]
) -> None:
    unasked = Reply("slow", "unavailable", message="Too many open files", ask_again=AskAgain.SOON)
    asked_with: list[set[str]] = []

    async def one_is_not_asked(_subject: Subject, **options: Any) -> Tagged:
        asked_with.append(set(options["earlier"]))
        raise NotAllAsked(ProviderReplies((ANSWERED, unasked)))

    it.outcome = one_is_not_asked
    assert await it.handle() is Ending.RETRIED
    assert asked_with == [set(), *[{"tensorflow"}] * 5]
    (retry,) = it.broker.retried
    assert set(unpack(cast("dict[str, object]", retry["headers"])[ANSWERS_HEADER])) == {"tensorflow"}
    assert retry["counted"] is False


async def test_an_event_over_its_instances_share_is_put_off_uncounted_before_anything_is_done_for_it() -> None:
    # Given an instance, one of several, that has its share in hand
    in_hand, it = InHand(lane_prefetch(4)), Reloading()
    in_hand.know(["default", "other"])
    it.pipeline._shares = in_hand
    async with in_hand.hold(Lane.LIVE, "default"), in_hand.hold(Lane.LIVE, "default"):
        # When another of its events comes, for the last time that it may be tried
        ending = await it.handle(attempt=1000)
    # Then it returns after a while, as the same attempt; it was not tagged, which would have failed
    assert ending is Ending.RETRIED
    (how,) = it.broker.retried
    assert (how["counted"], how["headers"]) == (False, {DEFERRALS_HEADER: 1})
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
    assert (how["counted"], how["headers"]) == (False, {DEFERRALS_HEADER: 1})
    assert it.broker.dead == []

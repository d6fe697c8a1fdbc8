"""One event's way, from delivery to settlement.

Every delivery ends in exactly one of: a confirmed result and an ack; a delayed retry, confirmed, then an ack; a failed
result and a dead letter, both confirmed, then an ack; or, while no events are taken, it goes back to the queue it came
from. Nothing is acknowledged before the broker has confirmed what replaces it, so the worst that a fault can do is a
second, equal result. A delivery that RabbitMQ has taken back is called off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from worker.amqp.broker import Broker
from worker.amqp.delivery import Delivery, Ending
from worker.amqp.errors import NotPublished, Unroutable
from worker.amqp.in_hand import DEFERRALS_HEADER, Deferred, InHand, deferrals_of
from worker.amqp.origin import ORIGIN_HEADER, Origin
from worker.amqp.pika_fixes import UnreadableProperties
from worker.amqp.topology import DELIVERY_LIMIT, Lane
from worker.engine import Active
from worker.errors import AutotagError, CannotBeDone, ResourceExhausted, TryLater, Unavailable, exhausted
from worker.images.content import Content
from worker.messages import (
    DEFAULT_INSTANCE,
    Event,
    LargeImage,
    ReadEvent,
    Result,
    UnreadableEvent,
    read_event,
    write_result,
)
from worker.messages.oddities import OddField
from worker.messages.oversized import refuse_oversized
from worker.messages.s3_notifications import S3Notification, read_s3_event, s3_notification
from worker.operations import tracing
from worker.operations.health.intake import Intake
from worker.operations.history import EndedDelivery, History, Thumbnail
from worker.operations.history.thumbnails import Thumbnails
from worker.operations.metrics import EventMetrics, queue_wait
from worker.operations.tracing import NO_TRACER, Trace, Tracer
from worker.providers.replies import ProviderReplies, pack, unpack
from worker.settings import InstanceSettings, Settings, service_of, tag_limit
from worker.supervision.shares import OVER_SHARE
from worker.tagging import results
from worker.tagging.gates import NO_PROVIDER_ENABLED, gate
from worker.tagging.results import Subject
from worker.tagging.tagger import NotAllAsked, conclude

_log = structlog.get_logger(__name__)

ANSWERS_HEADER = "x-autotag-answers"
"""What some providers have answered already, on an event that waits to ask the others again."""

INSTANCE_NOT_ALLOWED = "instance_not_allowed"
"""The event names an instance for which its publisher may not speak."""

_SHORTEST_WAIT_S = 60.0
"""An event that waits for an operator is tried again no more often than this."""

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
"""While this machine has run out of something: between two tries of an event that is held in hand."""


@dataclass(slots=True)
class DeliveryContext:
    """A delivery in hand, the settings and engine that it is handled under to its end, and what is known so far."""

    delivery: Delivery
    active: Active
    claim: str | None = None
    """The instance that the event speaks for, whether it may or not; None until it has been read."""
    event: Event | None = None
    """Only once it was found that it may."""
    image_bytes: bytes | LargeImage | None = field(default=None, repr=False)
    """The image, if it came inside the message, until it has been opened as a `Content`."""
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    tags: int = 0
    waited_s: float | None = None
    """How long the event had waited in its queue at its first delivery, if its publisher gave the time it was sent."""
    settled_providers: frozenset[str] = frozenset()
    """The providers whose final reply is in a result that has been published already."""
    published_in_this_attempt: frozenset[str] = frozenset()
    answered: ProviderReplies = field(init=False)
    """The final replies about the image so far: of earlier attempts, carried by the event, and of this one."""
    result: Result | None = None
    thumbnail: Thumbnail | None = None
    trace: Trace = field(default_factory=lambda: Trace(NO_TRACER))

    def __post_init__(self) -> None:
        self.answered = unpack(self.delivery.headers.get(ANSWERS_HEADER))

    @property
    def maximum_number_of_attempts(self) -> int:
        """After this many attempts a failure is final."""
        return self.active.settings.retry.maximum_number_of_attempts

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this attempt is final."""
        return self.delivery.attempt >= self.maximum_number_of_attempts

    @property
    def deferrals(self) -> int:
        """How often the event was put off because its instance was over its share."""
        return deferrals_of(self.delivery.headers.get(DEFERRALS_HEADER))

    def let_go_of_image(self) -> None:
        """The image is in a `Content` now, and once in memory is enough."""
        if self.event is not None and self.image_bytes is not None:
            self.event, self.image_bytes = self.event.without_image(), None

    def record(self, error: AutotagError) -> None:
        """Keep the reason for which the delivery ends otherwise than answered."""
        self.reason, self.message = error.reason, str(error)

    def keep(self, replies: ProviderReplies) -> None:
        """Keep the final replies, so that their providers are not asked again, whatever becomes of this attempt."""
        known = self.answered.facts
        if known is not None and replies.facts is not None and known.sha256 != replies.facts.sha256:
            self.settled_providers &= self.published_in_this_attempt  # what was published before is of another image
        self.answered = replies.settled_only.after(self.answered)

    def on_published(self, replies: ProviderReplies) -> None:
        """A result with these replies has been published, and another one is to follow."""
        self.settled_providers = self.published_in_this_attempt = replies.settled

    async def forget_answers_about_another(self, content: Content) -> None:
        """Forget what was answered if the image has changed since, as one has that can no longer be decoded."""
        known = self.answered.facts
        if known is not None and await asyncio.to_thread(content.sha256) != known.sha256:
            self.answered = ProviderReplies()

    def asset_and_instance(self, error: Exception | None = None) -> tuple[str | None, str | None]:
        """Asset id and instance, as far as the event, or the error about an unreadable one, names them."""
        if self.event is not None:
            return self.event.data.asset_id, self.event.data.instance
        if isinstance(error, UnreadableEvent):
            return error.asset_id, error.instance
        return None, None

    @property
    def counted_for(self) -> str | None:
        """The instance that the ending counts for: none whose name the event may not bear."""
        return self.claim if self.reason != INSTANCE_NOT_ALLOWED else None

    def log_fields(self, error: Exception | None = None) -> dict[str, object]:
        """The ids by which people find an event again in logs."""
        asset, instance = self.asset_and_instance(error)
        name = {"message_id": self.delivery.message_id} if self.event is None else {"event_id": self.event.id}
        return {**name, "asset_id": asset, "instance": instance, "attempt": self.delivery.attempt}


class Pipeline:
    """Handles deliveries, many at a time: from the broker to the providers, and their results back."""

    def __init__(
        self,
        broker: Broker,
        metrics: EventMetrics,
        history: History,
        thumbnails: Thumbnails,
        intake: Intake,
        in_hand: InHand,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._broker = broker
        self._intake = intake
        self._metrics = metrics
        self._history = history
        self._thumbnails = thumbnails
        self._in_hand = in_hand
        self._tracer = tracer

    async def handle(self, delivery: Delivery, active: Active) -> Ending:
        """Handle one delivery to its end, under the settings and engine that were active when it came.

        Raises nothing but cancellation; the delivery is then left unsettled, or is no longer ours to settle.
        """
        self._metrics.received(delivery.lane)
        with tracing.start_trace(self._tracer) as trace, self._metrics.in_hand():
            context = DeliveryContext(delivery, active, trace=trace)
            try:
                ending = await self._settle(context)
            except asyncio.CancelledError:
                if delivery.lost:
                    _log.info(
                        "called off: RabbitMQ has taken the event back and delivers it again", **context.log_fields()
                    )
                raise
            self._account_for(context, ending)
        return ending

    async def _settle(self, context: DeliveryContext) -> Ending:
        """Tag and answer; an error decides how the delivery ends instead, and an error in that how it ends at last."""
        try:
            return await self._answer_with_what_there_is(context)
        except Exception as error:  # noqa: BLE001 - decided by class there, down to a fault of ours
            first = error
        try:
            return await self._end_after(context, first)
        except Exception as error:  # noqa: BLE001 - no delivery is left unsettled, whatever went wrong
            return await self._end_at_last(context, error)

    async def _end_after(self, context: DeliveryContext, error: Exception) -> Ending:
        """How the delivery ends when it could not be answered."""
        match error:
            case CannotBeDone():
                return await self._dead_letter(context, error)
            case Unroutable():
                return await self._hold(context, error)
            case NotPublished():
                return await self._end_at_last(context, error)
            case TryLater(reason=reason) if reason == OVER_SHARE:
                return await self._defer(context, error)
            case TryLater():
                return await self._retry_later(context, error)
            case Unavailable() | ResourceExhausted():
                return await self._wait(context, error)
        # A fault of ours in one event must neither lose it nor stop the others; after its last attempt it is kept as a
        # dead letter that names the fault.
        _log.error("unexpected error", exc_info=error, **context.log_fields())
        fault = TryLater(f"unexpected {type(error).__name__}: {error}", reason="internal_error")
        return await self._retry_later(context, fault)

    async def _answer_with_what_there_is(self, context: DeliveryContext) -> Ending:
        """Answer, and while this machine has run out of what that takes, hold the event and begin again after a pause.

        In the pause the event holds no descriptor and no image: else events that wait could take from each other what
        they wait for. Raises ResourceExhausted when that has gone on for too long.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self._answer(context)
            except Exception as error:
                shortage = None if isinstance(error, CannotBeDone | NotPublished) else exhausted(error)
                if shortage is None:
                    raise
                if pause_s > _LONGEST_PAUSE_S:
                    raise shortage from error
                if isinstance(error, NotAllAsked):
                    context.keep(error.replies)
            if pause_s == _FIRST_PAUSE_S:
                _log.warning("held, and tried again after a pause", error=str(shortage), **context.log_fields())
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _answer(self, context: DeliveryContext) -> Ending:
        """The way of an event for which all goes well."""
        notification = s3_notification(context.delivery.body, context.delivery.message_id)
        if notification is not None and not notification.is_one_event:
            return await self._take_apart(context, notification)
        event = self._read(context, notification)
        settings, engine = context.active.settings, context.active.engine
        subject = Subject.of(event, bulk=context.delivery.lane is Lane.BULK)
        instance = settings.instance(subject.instance)

        skip = gate(event, settings, instance, engine.providers)
        if skip is not None and skip.reason == NO_PROVIDER_ENABLED and context.active.waits_for_a_switch:
            raise Unavailable(skip.message, reason=NO_PROVIDER_ENABLED)  # it came just before a reload switched all off
        del event  # the image may be a part of it
        if skip or instance is None:
            assert skip is not None  # noqa: S101 - the gate shuts for an instance without settings
            self._observe_queue_wait(context)
            result = _result_of_answers(context, skip.reason, skip.message)
            return await self._publish_and_ack(context, result or results.skipped(subject, skip))

        with await self._in_hand.take(context.delivery.lane, subject.instance, context.deferrals):
            self._observe_queue_wait(context)
            return await self._tag_and_answer(context, subject, instance)

    async def _take_apart(self, context: DeliveryContext, notification: S3Notification) -> Ending:
        """Have each of several records come again as a message of its own; drop those that are no new images.

        RabbitMQ has confirmed all of them before this message is acknowledged. After a fault between, some come twice,
        with the same ids.
        """
        tables = context.active.settings.sources.s3
        for part in notification.parts():
            service = service_of(tables, part.bucket) if part.bucket is not None else None
            origin = context.delivery.origin.as_header(service.instance if service is not None else None)
            await self._broker.return_part(context.delivery, part.message_id, part.body, {ORIGIN_HEADER: origin})
        context.delivery.ack()
        self._metrics.s3_ignored(notification.ignored)
        if notification.records:
            return Ending.SPLIT
        context.reason = f"s3_{notification.ignored[0]}"
        return Ending.IGNORED

    def _read(self, context: DeliveryContext, notification: S3Notification | None) -> Event:
        """The event in the message. Raises UnreadableEvent, and CannotBeDone if it may not speak for its instance."""
        delivery, settings = context.delivery, context.active.settings
        try:
            read = read_event_in(
                delivery.body, delivery.content_type, delivery.headers, delivery.message_id, settings, notification
            )
        except UnreadableEvent as error:
            context.claim = error.instance or DEFAULT_INSTANCE  # whose name would stand in a result
            _require_allowed(context.claim, delivery, settings, but=f"; nor can it be read: {error}")
            raise
        context.claim = read.event.data.instance
        _require_allowed(context.claim, delivery, settings)
        context.event, context.image_bytes = read.event, read.image_bytes
        self._join_trace(context, read.event)
        waited_s, implausible = _queue_wait(delivery, read.event)
        if delivery.attempt == 1 and not delivery.redelivered:
            context.waited_s = waited_s
        odd = read.oddities + implausible
        if isinstance(delivery.properties, UnreadableProperties):
            odd += (OddField("properties", "unusable"),)
        if odd:
            self._note_odd_fields(context, odd)
        return read.event

    async def _tag_and_answer(self, context: DeliveryContext, subject: Subject, instance: InstanceSettings) -> Ending:
        settings, engine = context.active.settings, context.active.engine
        assert context.event is not None  # noqa: S101 - `_answer` has read it

        async def publish_partial(result: Result, replies: ProviderReplies) -> None:
            await self._publish(context, result)
            context.on_published(replies)

        waiting = engine.tagger.who_waits(subject, instance, context.answered)
        try:
            with self._metrics.stage("fetch"):
                content = await engine.sources.open_content(
                    context.event, context.image_bytes, settings.sources_of(instance), subject.turn
                )
        except BaseException:
            engine.tagger.not_asked(subject, instance, waiting, context.answered)
            raise
        context.let_go_of_image()
        with content:
            context.settled_providers = context.answered.settled
            try:
                tagged = await engine.tagger.tag(
                    subject,
                    content,
                    instance,
                    maximum_number_of_tags=tag_limit(settings, instance),
                    earlier=context.answered,
                    waiting=waiting,
                    last_attempt=context.is_last_attempt,
                    more_attempts=True,
                    on_partial=publish_partial,
                )
            except CannotBeDone:
                await context.forget_answers_about_another(content)
                raise
            context.keep(tagged.replies)
            context.thumbnail = self._thumbnails.request(content, engine.decoders, subject.asset_id, subject.instance)
            if engine.shadow is not None:
                engine.shadow.offer(
                    subject,
                    content,
                    instance,
                    tagged,
                    tag_limit(settings, instance),
                    engine.decoders,
                    context.thumbnail,
                )

        result = tagged.result
        if tagged.replies.pending:
            return await self._ask_pending_later(context, result, tagged.replies)
        if result.status == "failed":
            why = CannotBeDone(result.message or "no provider could tag it", reason=result.reason or "failed")
            return await self._dead_letter(context, why, result)
        return await self._publish_and_ack(context, result)

    def _join_trace(self, context: DeliveryContext, event: Event) -> None:
        """Continue the publisher's trace with what is done from here on."""
        delivery = context.delivery
        context.trace.join(
            event.traceparent,
            event.tracestate,
            delivery.received_at_s,
            {
                "messaging.system": "rabbitmq",
                "messaging.operation.type": "process",
                "messaging.message.id": delivery.message_id or event.id,
                "autotag.asset_id": event.data.asset_id,
                "autotag.instance": event.data.instance,
                "autotag.attempt": delivery.attempt,
            },
        )

    def _observe_queue_wait(self, context: DeliveryContext) -> None:
        """How long it has waited until it is begun: in its queue, and where it was deferred in a retry queue."""
        if context.waited_s is not None:
            self._metrics.observe_queue_wait(context.waited_s)

    def _note_odd_fields(self, context: DeliveryContext, odd: Sequence[OddField]) -> None:
        """Count what was not as described in an event that could be read all the same."""
        self._metrics.odd_fields(odd)
        fields = [f"{each.field} {each.why}" for each in odd]
        _log.debug("fields of an event are not as described", odd=fields, **context.log_fields())

    # ── how a delivery ends ──────────────────────────────────────────────────────────────────────────────────────────

    async def _publish_and_ack(self, context: DeliveryContext, result: Result) -> Ending:
        await self._publish(context, result)
        context.delivery.ack()
        return Ending.ANSWERED

    async def _ask_pending_later(self, context: DeliveryContext, result: Result, replies: ProviderReplies) -> Ending:
        """Publish the tags that are there at once, and retry the event for the pending providers alone."""
        if replies.answered and replies.settled - context.settled_providers:  # else all of it has been published
            await self._publish(context, result)
        pending = replies.pending
        context.reason, context.message = pending[0].reason, pending[0].message
        counted = any(reply.counted for reply in pending)
        # A failure is waited out. What only waits for limits of our own comes back as soon as the first may be asked.
        after_s = (max if counted else min)(reply.after_s for reply in pending)
        return await self._retry(context, after_s, counted=counted)

    async def _retry_later(self, context: DeliveryContext, error: TryLater) -> Ending:
        if error.counted and context.is_last_attempt:
            attempts = context.maximum_number_of_attempts
            last = f"{error} (attempt {context.delivery.attempt} of {attempts}, the last)"
            return await self._dead_letter(context, CannotBeDone(last, reason=error.reason))
        context.record(error)
        _log.warning("will be retried", reason=error.reason, error=str(error), **context.log_fields())
        return await self._retry(context, error.after_s, counted=error.counted)

    async def _defer(self, context: DeliveryContext, error: TryLater) -> Ending:
        """The instance has its share, of what is in hand or of the fetches: the event gives way, uncounted."""
        context.record(error)
        delivery, (_, instance) = context.delivery, context.asset_and_instance()
        if not isinstance(error, Deferred):
            error = self._in_hand.deferred(delivery.lane, instance or "", context.deferrals)
        headers = _headers(context, error.deferrals)
        await self._broker.retry_later(delivery, exactly_s=error.after_s, counted=False, headers=headers)
        delivery.ack()
        return Ending.RETRIED

    async def _wait(self, context: DeliveryContext, error: Unavailable | ResourceExhausted) -> Ending:
        """The event waits for an operator, or for a machine that has more, however long: this is no attempt."""
        context.record(error)
        # While its lane is not consumed this one waits where the others are, unless RabbitMQ has counted it too often.
        if (
            await self._intake.is_closed(context.delivery.lane)
            and context.delivery.delivery_count < DELIVERY_LIMIT // 2
        ):
            context.delivery.requeue()
            return Ending.REQUEUED
        after_s = error.after_s if isinstance(error, Unavailable) else 0.0
        return await self._retry(context, max(_SHORTEST_WAIT_S, after_s), counted=False)

    async def _hold(self, context: DeliveryContext, error: Unroutable) -> Ending:
        """No queue is bound for this message. That is no fault of the event, which waits without being counted.

        In a retry queue, or, where none of its lane is bound, in hand.
        """
        context.record(error)
        self._metrics.unroutable()
        _log.error("unroutable; the event is kept and comes back", error=str(error), **context.log_fields())
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self._retry(context, _SHORTEST_WAIT_S, counted=False)
            except Unroutable:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _retry(self, context: DeliveryContext, after_s: float, *, counted: bool) -> Ending:
        """Put the event into a retry queue, with everything that has been answered about its image so far."""
        headers = _headers(context, 0)  # it has had its turn
        await self._broker.retry_later(context.delivery, at_least_s=after_s, counted=counted, headers=headers)
        context.delivery.ack()
        return Ending.RETRIED

    async def _dead_letter(self, context: DeliveryContext, error: CannotBeDone, result: Result | None = None) -> Ending:
        """Answer `failed`, then keep the event as a dead letter with its reason.

        What some providers have answered is not lost: where there is any of it, it is the answer instead.
        """
        _log.warning("cannot be done", reason=error.reason, error=str(error), **context.log_fields(error))
        if result is None and context.event is not None:
            earlier = _result_of_answers(context, error.reason, str(error))
            if earlier is not None:
                return await self._publish_and_ack(context, earlier)
            result = results.failed(Subject.of(context.event), error)
        elif isinstance(error, UnreadableEvent) and error.asset_id is not None:
            result = error.result()
        if result is not None:  # without an asset id the DMS could make nothing of a result
            await self._publish(context, result)
        return await self._set_aside(context, error)

    async def _set_aside(self, context: DeliveryContext, error: AutotagError) -> Ending:
        """Keep the event among the dead letters, with the reason."""
        context.status = "failed"
        context.record(error)
        asset, instance = context.asset_and_instance(error)
        await self._broker.dead_letter(
            context.delivery, error.reason, str(error), asset=asset, instance=instance, headers=_origin(context)
        )
        context.delivery.ack()
        return Ending.DEAD_LETTERED

    async def _end_at_last(self, context: DeliveryContext, error: Exception) -> Ending:
        """The last resort, when what should have ended the delivery failed: the event goes to the dead letters.

        With a result if one can be published, else without; if nothing can be published at all, RabbitMQ is asked to
        move the event by itself.
        """
        if isinstance(error, Unroutable):
            return await self._hold(context, error)
        known = error if isinstance(error, NotPublished) else None
        _log.error("could not be ended", exc_info=None if known else error, error=str(error), **context.log_fields())
        fault = CannotBeDone(
            str(error) if known else f"unexpected {type(error).__name__}: {error}",
            reason=known.reason if known else "internal_error",
        )
        for end in (self._dead_letter, self._set_aside):
            try:
                return await end(context, fault)
            except Exception as another:  # noqa: BLE001 - there is always one way left
                _log.error("nor could it be ended with its reason", error=str(another), **context.log_fields())
        context.record(fault)
        pause_s = _FIRST_PAUSE_S
        # Its queue may have no dead-letter exchange: RabbitMQ would drop the event.
        while not self._broker.can_reject(context.delivery.lane):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            with suppress(Exception):
                return await self._set_aside(context, fault)
        context.delivery.reject()
        return Ending.DEAD_LETTERED

    # ── publishing and accounting ────────────────────────────────────────────────────────────────────────────────────

    async def _publish(self, context: DeliveryContext, result: Result) -> None:
        context.status, context.reason, context.tags = result.status, result.reason, len(result.tags)
        with self._metrics.stage("publish"):
            message = write_result(
                result, event=_traced(context), settings_digest=context.active.digest(result.instance)
            )
            await self._broker.publish_result(message)
        self._metrics.result(result)
        context.result = result

    def _account_for(self, context: DeliveryContext, ending: Ending) -> None:
        took_s = time.monotonic() - context.delivery.received_at_s
        self._metrics.ended(ending, context.reason, context.counted_for, took_s)
        # Thousands of these would push what matters out of the page.
        passing = context.reason == OVER_SHARE or ending in (Ending.SPLIT, Ending.IGNORED)
        if not passing:
            self._history.on_delivery_ended(_ended(context, ending, took_s), time.monotonic(), time.time())
        tracing.current_span().set({"autotag.ending": ending.value, "autotag.status": context.status or ""})
        log = _log.debug if passing else _log.info
        log(
            "event ended",
            ending=ending.value,
            status=context.status,
            reason=context.reason,
            tags=context.tags,
            seconds=round(took_s, 3),
            stages_s={stage: round(spent_s, 4) for stage, spent_s in context.trace.stages_s.items()},
            **_near_duplicates_in(context.result),
            **context.log_fields(),
        )


def read_event_in(
    body: bytes,
    content_type: str | None,
    headers: Mapping[str, object],
    message_id: str | None,
    settings: Settings,
    notification: S3Notification | None,
) -> ReadEvent:
    """The event in a message of a lane, or in `notification`, which is what the body is. Raises UnreadableEvent."""
    if notification is not None:

        def instance_of(bucket: str) -> str | None:
            service = service_of(settings.sources.s3, bucket)
            return service.instance if service is not None else None

        return read_s3_event(notification.records[0], headers, instance_of)
    refuse_oversized(body, content_type, headers, message_id, settings.sources.inline_maximum_bytes)
    return read_event(body, content_type, headers, message_id)


def why_not_allowed(instance: str, origin: Origin, settings: Settings) -> str | None:
    """Why an event from there may not speak for the instance that it names; None if it may."""
    found = settings.instance(instance)
    if found is None and settings.unknown_instances == "refuse":
        return f"the instance {instance!r} has no settings (`unknown_instances` is refuse)"
    return origin.why_not_for(instance, (found or settings.defaults).publishers)


def _require_allowed(instance: str, delivery: Delivery, settings: Settings, but: str = "") -> None:
    """Raise CannotBeDone if the event may not speak for the instance that it names: it ends under nobody's name."""
    why = why_not_allowed(instance, delivery.origin, settings)
    if why is not None:
        raise CannotBeDone(why + but, reason=INSTANCE_NOT_ALLOWED)


def _origin(context: DeliveryContext) -> dict[str, object]:
    """What says where the event came from, on every message that replaces it."""
    return {ORIGIN_HEADER: context.delivery.origin.as_header(context.claim)}


def _headers(context: DeliveryContext, deferrals: int) -> dict[str, object]:
    """What an event carries to its next delivery: its origin, all that has been answered, how often it was put off."""
    headers = _origin(context)
    if context.answered.replies:
        headers[ANSWERS_HEADER] = pack(context.answered)
    if deferrals or context.deferrals:
        headers[DEFERRALS_HEADER] = deferrals
    return headers


def _result_of_answers(context: DeliveryContext, reason: str, message: str) -> Result | None:
    """The result of what has been answered so far, where the image cannot be looked at again; None without an answer.

    The providers that have not answered count as failed, for the reason that ended the event.
    """
    if context.event is None:
        return None
    subject, settings = Subject.of(context.event), context.active.settings
    instance = settings.instance(subject.instance)
    if instance is None:
        return None
    replies = context.active.engine.tagger.without_image(instance, context.answered, reason, message)
    return conclude(subject, replies, instance, tag_limit(settings, instance)).result if replies.answered else None


def _ended(context: DeliveryContext, ending: Ending, took_s: float) -> EndedDelivery:
    event, result = context.event, context.result
    about = event.data if event is not None else result
    return EndedDelivery(
        ending=ending,
        status=context.status,
        reason=context.reason,
        message=context.message,
        asset_id=about.asset_id if about is not None else None,
        instance=about.instance if about is not None else None,
        file_name=event.data.file_name if event is not None else None,
        result=result,
        thumbnail=context.thumbnail,
        took_s=took_s,
    )


def _near_duplicates_in(result: Result | None) -> dict[str, object]:
    """For the log: whose answers are those about an image that looks the same, and about which."""
    reports = result.providers if result is not None else ()
    found = {each.name: each.near_duplicate_of for each in reports if each.near_duplicate_of is not None}
    return {"near_duplicate_of": found} if found else {}


def _traced(context: DeliveryContext) -> Event | None:
    """The event with the trace context that its result passes on."""
    event = context.event
    if event is None or event.traceparent == context.trace.traceparent:
        return event
    return event.model_copy(update={"traceparent": context.trace.traceparent})


def _queue_wait(delivery: Delivery, event: Event) -> tuple[float | None, tuple[OddField, ...]]:
    received_at_s = time.time() - (time.monotonic() - delivery.received_at_s)
    return queue_wait(delivery.properties.timestamp, event.time, received_at_s=received_at_s)

"""One event's way, from delivery to settlement.

Every delivery ends in exactly one of: a confirmed result and an ack; a delayed retry, confirmed, then an ack; a failed
result and a dead letter, both confirmed, then an ack; or it goes back to the queue it came from. Nothing is
acknowledged before the broker has confirmed what replaces it, so the worst that a fault can do is a second, equal
result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from worker.amqp.broker import Broker
from worker.amqp.delivery import Delivery, Ending
from worker.amqp.errors import NotConfirmed, NotPublished, PublishRefused, Unroutable
from worker.amqp.pika_fixes import UnreadableProperties
from worker.engine import Active
from worker.errors import AutotagError, CannotBeDone, ResourceExhausted, TryLater, Unavailable, exhausted
from worker.messages import Event, ReadEvent, Result, UnreadableEvent, read_event, write_result
from worker.messages.oddities import OddField
from worker.operations import tracing
from worker.operations.history import EndedDelivery, History, Thumbnail
from worker.operations.history.thumbnails import Thumbnails
from worker.operations.metrics import EventMetrics, queue_wait
from worker.operations.tracing import NO_TRACER, Trace, Tracer
from worker.providers.replies import ProviderReplies, Reply, pack, unpack
from worker.settings import tag_limit
from worker.tagging import results
from worker.tagging.gates import gate
from worker.tagging.results import Subject
from worker.tagging.tagger import NotAllAsked

_log = structlog.get_logger(__name__)

ANSWERS_HEADER = "x-autotag-answers"
"""What some providers have answered already, on an event that waits to ask the others again."""

_SHORTEST_WAIT_S = 60.0
"""An event that waits for an operator is tried again no more often than this."""

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
"""Between two attempts to publish what the broker does not take: a queue is full, a permission is missing."""


@dataclass(slots=True)
class DeliveryContext:
    """A delivery in hand, the settings and engine that it is handled under to its end, and what is known so far."""

    delivery: Delivery
    active: Active
    event: Event | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    tags: int = 0
    settled_providers: frozenset[str] = frozenset()
    """The providers whose final reply is in a result that has been published already."""
    replies: dict[str, Reply] = field(default_factory=dict)
    """Final replies of this attempt, from before this machine ran out of what it takes to ask the other providers."""
    result: Result | None = None
    thumbnail: Thumbnail | None = None
    trace: Trace = field(default_factory=lambda: Trace(NO_TRACER))

    @property
    def maximum_number_of_attempts(self) -> int:
        """After this many attempts a failure is final."""
        return self.active.settings.retry.maximum_number_of_attempts

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this attempt is final."""
        return self.delivery.attempt >= self.maximum_number_of_attempts

    def record(self, error: AutotagError) -> None:
        """Keep the reason for which the delivery ends otherwise than answered."""
        self.reason, self.message = error.reason, str(error)

    def keep(self, replies: ProviderReplies) -> None:
        """Keep the final replies, so that their providers are not asked again."""
        self.replies |= {each.provider: each for each in replies.replies if each.provider in replies.settled}

    @property
    def earlier_replies(self) -> dict[str, Reply]:
        """The final replies of earlier attempts, and of this one."""
        return unpack(self.delivery.headers.get(ANSWERS_HEADER)) | self.replies

    def asset_and_instance(self, error: Exception | None = None) -> tuple[str | None, str | None]:
        """Asset id and instance, as far as the event, or the error about an unreadable one, names them."""
        if self.event is not None:
            return self.event.data.asset_id, self.event.data.instance
        if isinstance(error, UnreadableEvent):
            return error.asset_id, error.instance
        return None, None

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
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._broker = broker
        self._metrics = metrics
        self._history = history
        self._thumbnails = thumbnails
        self._tracer = tracer

    async def handle(self, delivery: Delivery, active: Active) -> Ending:
        """Handle one delivery to its end, under the settings and engine that were active when it came.

        Raises nothing but cancellation; then the delivery is left unsettled.
        """
        self._metrics.received(delivery.lane)
        with tracing.start_trace(self._tracer) as trace, self._metrics.in_hand():
            context = DeliveryContext(delivery, active, trace=trace)
            try:
                try:
                    ending = await self._settle(context)
                except Unroutable as error:
                    ending = await self._hold(context, error)
            except NotPublished as error:
                ending = self._requeue(context, error)
            self._account_for(context, ending)
        return ending

    async def _settle(self, context: DeliveryContext) -> Ending:
        """Tag and answer; an error decides how the delivery ends instead."""
        try:
            return await self._answer_with_what_there_is(context)
        except CannotBeDone as error:
            return await self._dead_letter(context, error)
        except NotPublished:
            raise
        except TryLater as error:
            return await self._retry_later(context, error)
        except (Unavailable, ResourceExhausted) as error:
            return await self._wait_for_operator(context, error)
        except Exception as error:  # noqa: BLE001
            # A fault of ours in one event must neither lose it nor stop the others; after its last attempt it is kept
            # as a dead letter that names the fault.
            _log.exception("unexpected error", **context.log_fields())
            fault = TryLater(f"unexpected {type(error).__name__}: {error}", reason="internal_error")
            return await self._retry_later(context, fault)

    async def _answer_with_what_there_is(self, context: DeliveryContext) -> Ending:
        """Answer, and while this machine has run out of what that takes, hold the event and begin again after a pause.

        In the pause the event holds no descriptor and no image: else events that wait could take from each other what
        they wait for. Raises ResourceExhausted when that has gone on for too long, or the delivery is no longer ours.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self._answer(context)
            except Exception as error:
                shortage = None if isinstance(error, CannotBeDone | NotPublished) else exhausted(error)
                if shortage is None:
                    raise
                if pause_s > _LONGEST_PAUSE_S or context.delivery.lost:
                    raise shortage from error
                if isinstance(error, NotAllAsked):
                    context.keep(error.replies)
            if pause_s == _FIRST_PAUSE_S:
                _log.warning("held, and tried again after a pause", error=str(shortage), **context.log_fields())
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _answer(self, context: DeliveryContext) -> Ending:
        """The way of an event for which all goes well."""
        delivery, settings, engine = context.delivery, context.active.settings, context.active.engine
        read = read_event(delivery.body, delivery.content_type, delivery.headers, delivery.message_id)
        event = context.event = read.event
        self._join_trace(context, event)
        self._note_odd_fields(context, read)
        subject = Subject.of(event)
        instance = settings.instance(subject.instance)

        skip = gate(event, settings, instance, engine.providers)
        if skip or instance is None:
            assert skip is not None  # noqa: S101 - the gate shuts for an instance without settings
            return await self._publish_and_ack(context, results.skipped(subject, skip))

        async def publish_partial(result: Result, replies: ProviderReplies) -> None:
            await self._publish(context, result)
            context.settled_providers = replies.settled

        with self._metrics.stage("fetch"):
            content = await engine.sources.open_content(event, read.image_bytes, settings.sources)
        with content:
            earlier = context.earlier_replies
            context.settled_providers = frozenset(earlier)
            tagged = await engine.tagger.tag(
                subject,
                content,
                instance,
                maximum_number_of_tags=tag_limit(settings, instance),
                earlier=earlier,
                last_attempt=context.is_last_attempt,
                on_partial=publish_partial,
            )
            context.thumbnail = self._thumbnails.request(content, engine.decoders, subject.asset_id)

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
        waited_s = _waited_s(delivery, event)
        if waited_s is not None:
            self._metrics.observe_queue_wait(waited_s)

    def _note_odd_fields(self, context: DeliveryContext, read: ReadEvent) -> None:
        """Count what was not as described in an event that could be read all the same."""
        delivery = context.delivery
        odd = [*read.oddities, *_queue_wait(delivery, read.event)[1]]
        if isinstance(delivery.properties, UnreadableProperties):
            odd.append(OddField("properties", "unusable"))
        if odd:
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
        after_s = max(reply.after_s for reply in pending)
        headers = {ANSWERS_HEADER: pack(replies.replies)}
        await self._until_accepted(
            context, lambda: self._broker.retry_later(context.delivery, at_least_s=after_s, headers=headers)
        )
        context.delivery.ack()
        return Ending.RETRIED

    async def _retry_later(self, context: DeliveryContext, error: TryLater) -> Ending:
        if error.counted and context.is_last_attempt:
            attempts = context.maximum_number_of_attempts
            last = f"{error} (attempt {context.delivery.attempt} of {attempts}, the last)"
            return await self._dead_letter(context, CannotBeDone(last, reason=error.reason))
        context.record(error)
        _log.warning("will be retried", reason=error.reason, error=str(error), **context.log_fields())
        await self._until_accepted(
            context,
            lambda: self._broker.retry_later(context.delivery, at_least_s=error.after_s, counted=error.counted),
        )
        context.delivery.ack()
        return Ending.RETRIED

    async def _wait_for_operator(self, context: DeliveryContext, error: Unavailable | ResourceExhausted) -> Ending:
        """The event waits for an operator, however long: this is no attempt."""
        context.record(error)
        if self._broker.state.paused:  # no event can be answered: keep this one where the others are
            context.delivery.requeue()
            return Ending.REQUEUED
        after_s = error.after_s if isinstance(error, Unavailable) else 0.0
        headers = {ANSWERS_HEADER: pack(context.earlier_replies.values())} if context.replies else None
        await self._until_accepted(
            context,
            lambda: self._broker.retry_later(
                context.delivery, at_least_s=max(_SHORTEST_WAIT_S, after_s), counted=False, headers=headers
            ),
        )
        context.delivery.ack()
        return Ending.RETRIED

    async def _dead_letter(self, context: DeliveryContext, error: CannotBeDone, result: Result | None = None) -> Ending:
        """Answer `failed`, then keep the event as a dead letter with its reason."""
        _log.warning("cannot be done", reason=error.reason, error=str(error), **context.log_fields(error))
        if result is None and context.event is not None:
            result = results.failed(Subject.of(context.event), error)
        elif isinstance(error, UnreadableEvent) and error.asset_id is not None:
            result = error.result()
        if result is not None:  # without an asset id the DMS could make nothing of a result
            await self._publish(context, result)
        context.status = "failed"
        context.record(error)
        asset, instance = context.asset_and_instance(error)
        await self._until_accepted(
            context,
            lambda: self._broker.dead_letter(
                context.delivery, error.reason, str(error), asset=asset, instance=instance
            ),
        )
        context.delivery.ack()
        return Ending.DEAD_LETTERED

    async def _hold(self, context: DeliveryContext, error: Unroutable) -> Ending:
        """No queue is bound for the result. That is no fault of the event, which is retried without being counted."""
        context.record(error)
        self._metrics.unroutable()
        _log.error("result is unroutable; the event is kept and comes back", error=str(error), **context.log_fields())
        await self._until_accepted(
            context, lambda: self._broker.retry_later(context.delivery, at_least_s=0, counted=False)
        )
        context.delivery.ack()
        return Ending.RETRIED

    def _requeue(self, context: DeliveryContext, error: NotPublished) -> Ending:
        """What should replace the event was not confirmed: the event itself stays the record of it."""
        context.record(error)
        _log.error("not confirmed; the event stays in its queue", error=str(error), **context.log_fields())
        context.delivery.requeue()
        return Ending.REQUEUED

    # ── publishing and accounting ────────────────────────────────────────────────────────────────────────────────────

    async def _publish(self, context: DeliveryContext, result: Result) -> None:
        context.status, context.reason, context.tags = result.status, result.reason, len(result.tags)
        with self._metrics.stage("publish"):
            message = write_result(
                result, event=_traced(context), settings_digest=context.active.digest(result.instance)
            )
            await self._until_accepted(context, lambda: self._broker.publish_result(message))
        self._metrics.result(result)
        context.result = result

    async def _until_accepted(self, context: DeliveryContext, publish: Callable[[], Awaitable[object]]) -> None:
        """Publish, and while that fails hold the event and try again with a growing pause.

        Requeueing instead would count towards the queue's delivery limit, and a full queue or a permission that was
        taken away would set every event aside in seconds. A delivery whose channel is gone is no longer ours to hold.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await publish()
            except (PublishRefused, NotConfirmed) as error:
                if context.delivery.lost:
                    raise
                _log.warning(
                    "not taken by the broker; trying again", error=str(error), pause_s=pause_s, **context.log_fields()
                )
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                return

    def _account_for(self, context: DeliveryContext, ending: Ending) -> None:
        took_s = time.monotonic() - context.delivery.received_at_s
        self._metrics.ended(ending, context.reason, took_s)
        self._history.on_delivery_ended(_ended(context, ending, took_s), time.monotonic())
        tracing.current_span().set({"autotag.ending": ending.value, "autotag.status": context.status or ""})
        _log.info(
            "event ended",
            ending=ending.value,
            status=context.status,
            reason=context.reason,
            tags=context.tags,
            seconds=round(took_s, 3),
            stages_s={stage: round(spent_s, 4) for stage, spent_s in context.trace.stages_s.items()},
            **context.log_fields(),
        )


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


def _traced(context: DeliveryContext) -> Event | None:
    """The event with the trace context that its result passes on."""
    event = context.event
    if event is None or event.traceparent == context.trace.traceparent:
        return event
    return event.model_copy(update={"traceparent": context.trace.traceparent})


def _waited_s(delivery: Delivery, event: Event) -> float | None:
    """How long the event had waited in its queue at its first delivery, if its publisher gave the time it was sent."""
    if delivery.attempt > 1 or delivery.redelivered:
        return None
    return _queue_wait(delivery, event)[0]


def _queue_wait(delivery: Delivery, event: Event) -> tuple[float | None, tuple[OddField, ...]]:
    received_at_s = time.time() - (time.monotonic() - delivery.received_at_s)
    return queue_wait(delivery.properties.timestamp, event.time, received_at_s=received_at_s)

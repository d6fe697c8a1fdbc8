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
from enum import StrEnum

import structlog

from worker.tagging import tagger
from worker.operations import tracing
from worker.operations.history.thumbnails import Album
from worker.amqp.broker import Broker
from worker.amqp.delivery import Delivery
from worker.amqp.errors import NotConfirmed, NotPublished, PublishRefused, Unroutable
from worker.errors import AutotagError, CannotBeDone, TryLater, Unavailable
from worker.operations.history import Ended, History, Picture
from worker.messages import Event, Result, UnreadableEvent, read_event, write_result
from worker.operations.metrics import EventMetrics
from worker.tagging.gates import gate
from worker.providers.replies import pack, unpack
from worker.settings import InstanceSettings, Settings, settings_digest
from worker.tagging.tagger import Findings
from worker.operations.tracing import NO_TRACER, Trace, Tracer
from worker.engine import Workshop

_log = structlog.get_logger(__name__)

ANSWERS_HEADER = "x-autotag-answers"
"""What some providers have answered already, on an event that waits to ask the others again."""

_WAIT_AT_LEAST_S = 60.0
"""An event that waits for an operator looks again no more often than this."""

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
"""Between two attempts to publish what the broker does not take: a queue is full, a permission is missing."""


class Ending(StrEnum):
    """How a delivery ended."""

    ANSWERED = "answered"
    RETRIED = "retried"
    DEAD_LETTERED = "dead_lettered"
    REQUEUED = "requeued"


@dataclass(slots=True)
class Errand:
    """A delivery in hand, and what is known about it so far."""

    delivery: Delivery
    event: Event | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    tags: int = 0
    told: frozenset[str] = frozenset()
    """The providers whose final word the DMS has had, in a result before the last one."""
    result: Result | None = None
    picture: Picture | None = None
    trace: Trace = field(default_factory=lambda: Trace(NO_TRACER))

    def blame(self, error: AutotagError) -> None:
        """This is why it ends otherwise than it should."""
        self.reason, self.message = error.reason, str(error)


class Pipeline:
    """Carries deliveries, many at a time, from the broker to the providers and their results back."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        broker: Broker,
        workshop: Workshop,
        metrics: EventMetrics,
        history: History,
        album: Album,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.workshop = workshop
        """A reload puts another one here; each event ends in the one in which it began."""
        self._settings = settings
        self._broker = broker
        self._metrics = metrics
        self._history = history
        self._album = album
        self._tracer = tracer
        self._digests = _Digests()

    async def carry(self, delivery: Delivery) -> Ending:
        """Carry one delivery to its end. Raises nothing but cancellation; then the delivery is left unsettled."""
        self._metrics.received(delivery.lane)
        with tracing.follow(self._tracer) as trace, self._metrics.in_hand():
            errand = Errand(delivery, trace=trace)
            try:
                try:
                    ending = await self._end(errand)
                except Unroutable as error:
                    ending = await self._hold(errand, error)
            except NotPublished as error:
                ending = self._put_back(errand, error)
            self._account_for(errand, ending)
        return ending

    async def _end(self, errand: Errand) -> Ending:
        try:
            return await self._answer(errand)
        except CannotBeDone as error:
            return await self._give_up(errand, error)
        except NotPublished:
            raise
        except TryLater as error:
            return await self._try_later(errand, error)
        except Unavailable as error:
            return await self._wait(errand, error)
        except Exception as error:  # noqa: BLE001
            # A fault of ours in one event must neither lose it nor stop the others; after its last attempt it is kept
            # as a dead letter that says so.
            _log.exception("unexpected error", **_who(errand))
            fault = TryLater(f"unexpected {type(error).__name__}: {error}", reason="internal_error")
            return await self._try_later(errand, fault)

    async def _answer(self, errand: Errand) -> Ending:
        """The way of an event for which all goes well."""
        delivery, settings, workshop = errand.delivery, self._settings(), self.workshop
        read = read_event(delivery.body, delivery.content_type, delivery.headers, delivery.message_id)
        event = errand.event = read.event
        self._join_trace(errand, event)
        instance = settings.instance(event.data.instance)

        skip = gate(event, settings, instance, workshop.providers)
        if skip or instance is None:
            assert skip is not None  # noqa: S101 - the gate shuts for an instance without settings
            return await self._publish_and_ack(errand, tagger.skipped(event, skip), settings)

        with self._metrics.stage("fetch"):
            content = await workshop.sources.open_content(event, read.image_bytes, settings.sources)
        with content:
            earlier = unpack(delivery.headers.get(ANSWERS_HEADER))
            errand.told = frozenset(earlier)

            async def tell(so_far: Findings) -> None:
                await self._publish(errand, tagger.tagged(event, so_far, instance, settings), settings)
                errand.told = so_far.settled

            findings = await workshop.tagger.look(event, content, instance, earlier=earlier, tell=tell)
            errand.picture = self._album.picture(content, workshop.decoders, event.data.asset_id)

        if findings.down and delivery.attempt < settings.retry.maximum_number_of_attempts:
            return await self._ask_again_later(errand, findings, instance, settings)
        findings = findings.without_hope()
        tagger.raise_if_it_must_wait(findings, event.data.asset_id)
        result = tagger.tagged(event, findings, instance, settings)
        if result.status == "failed":
            why = CannotBeDone(result.message or "no provider could tag it", reason=result.reason or "failed")
            return await self._give_up(errand, why, result)
        return await self._publish_and_ack(errand, result, settings)

    def _join_trace(self, errand: Errand, event: Event) -> None:
        """What is done from here on belongs to the trace of the publisher."""
        delivery = errand.delivery
        errand.trace.join(
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
            self._metrics.waited(waited_s)

    async def _publish_and_ack(self, errand: Errand, result: Result, settings: Settings) -> Ending:
        await self._publish(errand, result, settings)
        errand.delivery.ack()
        return Ending.ANSWERED

    async def _publish(self, errand: Errand, result: Result, settings: Settings) -> None:
        errand.status, errand.reason, errand.tags = result.status, result.reason, len(result.tags)
        with self._metrics.stage("publish"):
            message = write_result(
                result, event=_traced(errand), settings_digest=self._digests.of(settings, result.instance)
            )
            await self._accepted(errand, lambda: self._broker.publish_result(message))
        self._metrics.result(result)
        errand.result = result

    async def _ask_again_later(
        self, errand: Errand, findings: Findings, instance: InstanceSettings, settings: Settings
    ) -> Ending:
        """Let the tags that are there go out at once, and the providers that are down be asked again by themselves."""
        assert errand.event is not None  # noqa: S101 - there are no findings without an event
        if findings.answered and findings.settled - errand.told:  # else the DMS has had all that there is
            await self._publish(errand, tagger.tagged(errand.event, findings, instance, settings), settings)
        down = findings.down
        errand.reason, errand.message = down[0].reason, down[0].message
        after_s = max(reply.after_s for reply in down)
        headers = {ANSWERS_HEADER: pack(findings.replies)}
        await self._accepted(
            errand, lambda: self._broker.retry_later(errand.delivery, at_least_s=after_s, headers=headers)
        )
        errand.delivery.ack()
        return Ending.RETRIED

    async def _try_later(self, errand: Errand, error: TryLater) -> Ending:
        attempts = self._settings().retry.maximum_number_of_attempts
        if errand.delivery.attempt >= attempts:
            last = f"{error} (attempt {errand.delivery.attempt} of {attempts}, the last)"
            return await self._give_up(errand, CannotBeDone(last, reason=error.reason))
        errand.blame(error)
        _log.warning("will be retried", reason=error.reason, error=str(error), **_who(errand))
        await self._accepted(errand, lambda: self._broker.retry_later(errand.delivery, at_least_s=error.after_s))
        errand.delivery.ack()
        return Ending.RETRIED

    async def _wait(self, errand: Errand, error: Unavailable) -> Ending:
        """The event waits for an operator, however long: this is no attempt."""
        errand.blame(error)
        if self._broker.state.paused:  # nobody's events can be answered: keep this one where the others are
            errand.delivery.requeue()
            return Ending.REQUEUED
        await self._accepted(
            errand,
            lambda: self._broker.retry_later(
                errand.delivery, at_least_s=max(_WAIT_AT_LEAST_S, error.after_s), counted=False
            ),
        )
        errand.delivery.ack()
        return Ending.RETRIED

    async def _give_up(self, errand: Errand, error: CannotBeDone, result: Result | None = None) -> Ending:
        """Answer `failed`, then keep the event as a dead letter with its reason."""
        _log.warning("cannot be done", reason=error.reason, error=str(error), **_who(errand, error))
        if result is None and errand.event is not None:
            result = tagger.failed(errand.event, error)
        elif isinstance(error, UnreadableEvent) and error.asset_id is not None:
            result = error.result()
        if result is not None:  # without so much as an asset id there is nobody to tell it to
            await self._publish(errand, result, self._settings())
        errand.status = "failed"
        errand.blame(error)
        asset, instance = _whose(errand, error)
        await self._accepted(
            errand,
            lambda: self._broker.dead_letter(errand.delivery, error.reason, str(error), asset=asset, instance=instance),
        )
        errand.delivery.ack()
        return Ending.DEAD_LETTERED

    async def _hold(self, errand: Errand, error: Unroutable) -> Ending:
        """No queue is bound for the result. That is no fault of the event, which comes back uncounted."""
        errand.blame(error)
        self._metrics.unroutable()
        _log.error("result is unroutable; the event is kept and comes back", error=str(error), **_who(errand))
        await self._accepted(errand, lambda: self._broker.retry_later(errand.delivery, at_least_s=0, counted=False))
        errand.delivery.ack()
        return Ending.RETRIED

    def _put_back(self, errand: Errand, error: NotPublished) -> Ending:
        """What should replace the event was not confirmed: the event itself stays the record of it."""
        errand.blame(error)
        _log.error("not confirmed; the event stays in its queue", error=str(error), **_who(errand))
        errand.delivery.requeue()
        return Ending.REQUEUED

    async def _accepted(self, errand: Errand, publish: Callable[[], Awaitable[object]]) -> None:
        """Publish, and while that fails hold the event and try again: what stands in the way slows us down, no more.

        Requeueing instead would count towards the queue's delivery limit, and a full queue or a permission that was
        taken away would set every event aside in seconds. A delivery whose channel is gone is no longer ours to hold.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await publish()
            except (PublishRefused, NotConfirmed) as error:
                if errand.delivery.lost:
                    raise
                _log.warning("not taken by the broker; trying again", error=str(error), pause_s=pause_s, **_who(errand))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                return

    def _account_for(self, errand: Errand, ending: Ending) -> None:
        took_s = time.monotonic() - errand.delivery.received_at_s
        self._metrics.ended(ending, errand.reason, took_s)
        self._history.ended(_ended(errand, ending, took_s), time.monotonic())
        tracing.current_span().set({"autotag.ending": ending.value, "autotag.status": errand.status or ""})
        _log.info(
            "event ended",
            ending=ending.value,
            status=errand.status,
            reason=errand.reason,
            tags=errand.tags,
            seconds=round(took_s, 3),
            stages_s={stage: round(spent_s, 4) for stage, spent_s in errand.trace.stages_s.items()},
            **_who(errand),
        )


class _Digests:
    """The settings digest of each instance, made once for as long as the settings stay the same."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._known: dict[int, str] = {}

    def of(self, settings: Settings, instance_name: str) -> str:
        """The digest that goes into the id of a result for this instance."""
        if settings is not self._settings:
            self._settings, self._known = settings, {}
        instance = settings.instance(instance_name) or settings.defaults
        key = id(instance)  # the settings keep their instances, so the number stays theirs
        if key not in self._known:
            self._known[key] = settings_digest(settings, instance)
        return self._known[key]


def _ended(errand: Errand, ending: Ending, took_s: float) -> Ended:
    event, result = errand.event, errand.result
    about = event.data if event is not None else result
    return Ended(
        ending=ending.value,
        status=errand.status,
        reason=errand.reason,
        message=errand.message,
        asset_id=about.asset_id if about is not None else None,
        instance=about.instance if about is not None else None,
        file_name=event.data.file_name if event is not None else None,
        result=result,
        picture=errand.picture,
        took_s=took_s,
    )


def _traced(errand: Errand) -> Event | None:
    """The event with the trace context that its result carries on."""
    event = errand.event
    if event is None or event.traceparent == errand.trace.traceparent:
        return event
    return event.model_copy(update={"traceparent": errand.trace.traceparent})


def _waited_s(delivery: Delivery, event: Event) -> float | None:
    """How long the event had waited in its queue when it came first, as far as its publisher said when it sent it.

    AMQP's timestamp is when it was sent, in whole seconds; `time` is exact, and may be that of an upload long ago.
    """
    sent = delivery.properties.timestamp
    if delivery.attempt > 1 or delivery.redelivered or (sent is None and event.time is None):
        return None
    came_at = time.time() - (time.monotonic() - delivery.received_at_s)
    exact = event.time.timestamp() if event.time is not None else None
    if not isinstance(sent, int) or (exact is not None and 0 <= exact - sent < 1):
        sent = exact
    return None if sent is None else max(0.0, came_at - sent)


def _whose(errand: Errand, error: Exception | None = None) -> tuple[str | None, str | None]:
    """Asset id and instance, as far as the event, or the error over an unreadable one, tells them."""
    if errand.event is not None:
        return errand.event.data.asset_id, errand.event.data.instance
    if isinstance(error, UnreadableEvent):
        return error.asset_id, error.instance
    return None, None


def _who(errand: Errand, error: Exception | None = None) -> dict[str, object]:
    """The ids by which people find an event again in logs."""
    event, delivery = errand.event, errand.delivery
    asset, instance = _whose(errand, error)
    name = {"message_id": delivery.message_id} if event is None else {"event_id": event.id}
    return {**name, "asset_id": asset, "instance": instance, "attempt": delivery.attempt}

"""The service's side of RabbitMQ: deliveries in, confirmed messages out, over two connections kept up side by side.

One connection consumes and acks, the other publishes; each is made again by itself, so that losing the publishing one
loses no delivery, and losing the consuming one fails no publish. Deliveries are taken only while everything that could
end them can be published; each reason not to is a named pause.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from worker.amqp.connect_status import read_status
from worker.amqp.connection import Connection
from worker.amqp.declare import QueueLevel, levels
from worker.amqp.delivery import Delivery
from worker.amqp.errors import TOO_LARGE, BrokerUnreachable, NotConfirmed, Unpublishable, Unroutable
from worker.amqp.in_hand import lane_prefetch
from worker.amqp.mark import HeaderCheck, HeaderMark
from worker.amqp.outbox import Message, Outbox, WayOut
from worker.amqp.parameters import Address, addresses, connection_name
from worker.amqp.publisher import message_properties
from worker.amqp.republish import (
    dead_letter_properties,
    part_properties,
    probe_properties,
    retry_properties,
    without_image,
)
from worker.amqp.session import ConsumingSession, PublishingSession
from worker.amqp.state import BrokerPause, BrokerPhase, BrokerState
from worker.amqp.topology import Lane, Topology
from worker.amqp.upkeep import Upkeep, UpkeepPhase
from worker.messages import OutgoingMessage
from worker.settings import AmqpSettings

_log = structlog.get_logger(__name__)

_CLOSING = "closing"

_LANE_PAUSE = "lane_{lane}_cannot_be_consumed"

BYTES_IN_HAND = "bytes_in_hand"
"""The pause while the messages in hand are so large together that no more are read."""

_SHED_AFTER_S = 4.0
"""For so long the socket is just not read, which is part of normal work with large messages."""

_AGE_CHECKS_PER_HOLD = 20
_LONGEST_AGE_CHECK_INTERVAL_S = 10.0


class Broker:
    """Consumes deliveries and publishes messages.

    `on_delivery`, `on_state` and `on_lost` are called in the event loop and must not block. `on_lost` is called with
    each delivery that was not settled and is no longer ours: its channel or consumer is gone, or it was given back
    after `amqp.hold_s`; whatever is done for it should end. `lanes` maps each lane to consume to its prefetch; by
    default both lanes, live with the whole `amqp.prefetch` and bulk with a quarter of it.
    """

    def __init__(
        self,
        settings: AmqpSettings,
        topology: Topology,
        on_delivery: Callable[[Delivery], None],
        on_state: Callable[[BrokerState], None] = lambda _: None,
        *,
        on_lost: Callable[[Delivery], None] = lambda _: None,
        lanes: Mapping[Lane, int] | None = None,
    ) -> None:
        self.on_delivery = on_delivery
        self.on_lost = on_lost
        self._settings = settings
        self._topology = topology
        self._on_state = on_state
        self._lanes = dict(lanes or lane_prefetch(settings.prefetch))
        self._mark = HeaderMark.of(settings)
        self._header_check = HeaderCheck(self._mark)
        self._pauses: dict[str, BrokerPause] = {}
        self._outbox = Outbox(topology, self._on_change, self._probe)
        where = addresses(settings)
        longest_s = settings.reconnect_max_s
        self._consuming: Upkeep[ConsumingSession] = Upkeep(
            "consuming", self._open_consuming, where, reconnect_max_s=longest_s, on_change=self._on_change
        )
        self._publishing: Upkeep[PublishingSession] = Upkeep(
            "publishing", self._open_publishing, where, reconnect_max_s=longest_s, on_change=self._on_change
        )
        self._started = asyncio.Event()
        self._ageing: asyncio.Task[None] | None = None
        self._bytes_in_hand = 0
        self._read_from: Connection | None = None
        """The consuming connection, also before its session is in use."""
        self.is_full = False
        """Whether what arrives goes back, since what is in hand has been too large for some seconds."""
        self._full_since_s: float | None = None
        """Since when more bytes than `amqp.maximum_bytes_in_hand` are in hand, or would soon be (monotonic)."""
        self._shed_timer: asyncio.TimerHandle | None = None
        self._shedding: asyncio.Task[None] | None = None
        self._was_paused = True
        self._connected_once = False
        self._reconnects = 0
        self._snapshot = BrokerState(BrokerPhase.CONNECTING, time.monotonic(), wanted=frozenset(self._lanes))
        """The state of which `on_state` was notified last."""

    @property
    def prefix(self) -> str:
        """The prefix of the names of all our queues."""
        return self._topology.prefix

    def can_reject(self, lane: Lane) -> bool:
        """Whether `Delivery.reject` leads to the dead letters: the lane's queue is declared as we declare it."""
        session = self._consuming.session
        return self._settings.declare and session is not None and lane in session.declared

    @property
    def state(self) -> BrokerState:
        """The current state."""
        consuming, publishing = self._consuming.session, self._publishing.session
        return replace(
            self._snapshot,
            unmarked=self._header_check.unmarked,
            lanes=consuming.lanes if consuming else frozenset(),
            blocked=self._blocked,
            pauses=self._all_pauses(),
            unsettled=consuming.unsettled if consuming else 0,
            unconfirmed=(publishing.in_flight if publishing else 0) + self._outbox.held,
        )

    # Starting and stopping

    async def start(self) -> None:
        """Connect, and return once consuming (or, if paused, once connected). Waits for RabbitMQ indefinitely."""
        self._consuming.start()
        self._publishing.start()
        self._ageing = asyncio.create_task(self._give_back_what_is_too_old(), name="amqp ageing")
        await self._started.wait()

    async def close(self) -> None:
        """Stop consuming and disconnect; RabbitMQ requeues what is not settled. Closing twice is harmless."""
        self._pauses.setdefault(_CLOSING, BrokerPause(time.monotonic(), "closing"))
        if self._shed_timer is not None:
            self._shed_timer.cancel()
        for task in (self._ageing, self._shedding):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await asyncio.gather(self._consuming.close(), self._publishing.close(), self._outbox.close())
        self._on_change()

    async def stop_consuming(self, reason: str, message: str | None = None) -> None:
        """Accept no new delivery until `resume_consuming` has lifted this reason and all others.

        Deliveries in hand stay in hand. Returns when RabbitMQ has ended the consumers, or after `connection_timeout_s`
        without its reply.
        """
        since_s = self._pauses[reason].since_s if reason in self._pauses else time.monotonic()
        self._pauses[reason] = BrokerPause(since_s, message or reason)
        await self._reconcile()

    async def resume_consuming(self, reason: str) -> None:
        """Lift a reason; when it was the last one, consume again."""
        self._pauses.pop(reason, None)
        await self._reconcile()

    async def _reconcile(self) -> None:
        self._on_change()
        if (session := self._consuming.session) is not None:  # without a connection there is nothing to wait for
            await session.settle(self._settings.connection_timeout_s)
            self._on_change()

    # Publishing

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        content_type: str | None,
        headers: Mapping[str, object],
        message_id: str,
        persistent: bool = True,
    ) -> None:
        """Publish a message once, and return when RabbitMQ has confirmed it. Calls may overlap.

        Raises NotPublished: Unroutable, PublishRefused, Unpublishable, or NotConfirmed.
        """
        properties = message_properties(
            content_type=content_type, headers=headers, message_id=message_id, persistent=persistent
        )
        session = self._publishing.session
        if session is None or session.at_large is None:
            raise NotConfirmed(f"message {message_id} was not sent: {self._disconnect_reason()}")
        await session.at_large.publish(exchange, routing_key, body, properties)

    async def publish_result(self, result: OutgoingMessage) -> None:
        """Publish a result; returns when RabbitMQ has confirmed it, however long that takes.

        Raises Unpublishable, and Unroutable where only this routing key has no queue.
        """
        properties = message_properties(
            content_type=result.content_type, headers=result.headers, message_id=result.message_id
        )
        # Where it failed, the same event may come again and be tagged: then `failed` must not be the later answer.
        late = not result.routing_key.endswith(".failed")
        message = Message(result.routing_key, result.body, properties, publishable_late=late)
        await self._outbox.publish(WayOut.RESULTS, message)

    async def retry_later(
        self,
        delivery: Delivery,
        *,
        at_least_s: float = 0.0,
        headers: Mapping[str, object] | None = None,
        counted: bool = True,
        exactly_s: float | None = None,
    ) -> float:
        """Publish a delivery's message to a retry queue and return the delay in seconds; the caller then acks it.

        The message returns as the next attempt or, if not `counted`, as the same one, after the shortest delay that is
        long enough: it only waits for its turn. `exactly_s`: not after the queue's delay, but as soon as this has
        passed and those before it have returned. Returns when RabbitMQ has confirmed it, however long that takes. Where
        only the queue of this delay is missing, another delay is used. Raises Unpublishable, and Unroutable where no
        delay has a queue and other events could wait.
        """
        properties = retry_properties(delivery, headers or {}, attempt=delivery.attempt + counted, mark=self._mark)
        shortest_s = at_least_s if exactly_s is None else exactly_s
        first_s = self._topology.retry_delay_s(delivery.attempt if counted else 1, shortest_s)
        if exactly_s is not None and exactly_s < first_s:
            properties.expiration = str(max(1, round(exactly_s * 1000)))
        others_s = sorted({*self._topology.delays_s} - {first_s}, key=lambda delay_s: abs(delay_s - first_s))
        for delay_s in (first_s, *others_s):
            key = self._topology.retry_key(delivery.lane, delay_s)
            try:
                await self._outbox.publish(WayOut.RETRIES, Message(key, delivery.body, properties))
            except Unroutable as error:
                unroutable = error
            else:
                return delay_s
        raise unroutable

    async def return_part(
        self, delivery: Delivery, message_id: str, body: bytes, headers: Mapping[str, object]
    ) -> None:
        """Publish one of several events of a delivery, so that it comes again through its lane, as soon as it can.

        By way of a retry queue, as `retry_later`: a worker need not have the right to publish events. Returns when
        RabbitMQ has confirmed it. Raises Unpublishable and Unroutable.
        """
        properties = part_properties(delivery, message_id, body, headers, self._mark)
        properties.expiration = "1"
        key = self._topology.retry_key(delivery.lane, min(self._topology.delays_s))
        await self._outbox.publish(WayOut.RETRIES, Message(key, body, properties))

    async def dead_letter(
        self,
        delivery: Delivery,
        reason: str,
        message: str,
        *,
        asset: str | None = None,
        instance: str | None = None,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        """Publish a delivery's message and the reason for its failure to the dead letters; the caller then acks it.

        Returns when RabbitMQ has confirmed it, however long that takes. What the publisher set and cannot be written
        again is left out. Raises Unpublishable where the message is larger than RabbitMQ takes and `can_reject`: it
        moves the whole message there itself then. Where it cannot, the event is published without its image.
        """

        def publish(body: bytes, **options: Any) -> Awaitable[None]:
            properties = dead_letter_properties(
                delivery,
                reason,
                message,
                asset=asset,
                instance=instance,
                headers=headers or {},
                now=datetime.now(UTC),
                mark=self._mark,
                body=body,
                **options,
            )
            return self._outbox.publish(WayOut.DEAD_LETTERS, Message(delivery.lane.value, body, properties))

        try:
            await publish(delivery.body)
        except Unpublishable as error:
            if error.reason != TOO_LARGE:
                await publish(delivery.body, without_publishers=True)
            elif self.can_reject(delivery.lane):
                raise
            else:
                left_out = f"{len(delivery.body)} bytes, SHA-256 {hashlib.sha256(delivery.body).hexdigest()}"
                body = without_image(delivery.body, maximum_bytes=self._outbox.maximum_bytes)
                await publish(body, left_out=left_out)

    def _probe(self, key: str) -> Message:
        return Message(key, b"", probe_properties(self._mark))

    # Looking at the queues

    async def depths(self) -> dict[str, int]:
        """Number of messages ready in each of our queues. Raises BrokerUnreachable."""
        found = await levels(self._connection_that_is_read(), (queue.name for queue in self._topology.queues))
        return {queue: level.messages for queue, level in found.items()}

    async def lane_levels(self) -> dict[Lane, QueueLevel]:
        """Each lane's queue: messages ready, and the consumers that other workers have. Raises BrokerUnreachable."""
        queues = {lane: self._topology.lane_queue(lane) for lane in self._lanes}
        found = await levels(self._connection_that_is_read(), queues.values())
        ours = self.state.lanes
        return {
            lane: replace(found[queue], consumers=max(0, found[queue].consumers - (lane in ours)))
            for lane, queue in queues.items()
            if queue in found
        }

    async def connector_status(self) -> bytes | None:
        """What `autotag connect` last said of itself, if it has. Raises BrokerUnreachable and Misconfigured."""
        return await read_status(self._connection_that_is_read(), self._topology)

    def _connection_that_is_read(self) -> Connection:
        """The consuming connection: RabbitMQ never blocks it."""
        if self._consuming.session is None:
            raise BrokerUnreachable(f"not connected to RabbitMQ: {self._disconnect_reason()}")
        return self._consuming.session.connection

    def _disconnect_reason(self) -> str:
        return self._snapshot.last_error or "there is no connection yet"

    # What the sessions ask, and report

    @property
    def is_paused(self) -> bool:
        """Whether no delivery is to be taken."""
        return bool(self._pauses) or self.is_full or not self._outbox.open

    def on_bytes(self, change: int) -> None:
        """The bodies in hand have become larger or smaller by this many bytes."""
        self._bytes_in_hand += change
        self._read_what_fits()

    def _read_what_fits(self) -> None:
        """Pause reading while what is in hand, and what has begun to arrive beside it, is too large together.

        With nothing in hand it is read in any case: one message alone may be larger, and two lanes may have one each.
        """
        coming_bytes = self._read_from.coming_bytes if self._read_from is not None else 0
        fits = self._bytes_in_hand + coming_bytes <= self._settings.maximum_bytes_in_hand
        if (fits or not self._bytes_in_hand) is (self._full_since_s is None):
            return
        if self._full_since_s is None:
            self._full_since_s = time.monotonic()
            self._shed_timer = asyncio.get_running_loop().call_later(_SHED_AFTER_S, self._start_shedding)
            if self._read_from is not None:
                self._read_from.pause_reading()
        else:
            self._full_since_s = None
            if self._shed_timer is not None:
                self._shed_timer.cancel()
            if self._read_from is not None:
                self._read_from.resume_reading()
            if self.is_full:
                self.is_full = False
                self._on_change()

    def _start_shedding(self) -> None:
        """What is in hand stays too large: the socket must be read again, so that what comes now goes back."""
        self.is_full = True
        self._on_change()
        if (session := self._consuming.session) is not None:
            self._shedding = asyncio.create_task(session.shed(), name="amqp shedding")
        elif self._read_from is not None:
            self._read_from.resume_reading()

    async def _open_consuming(self, where: Address) -> ConsumingSession:
        self._read_from = await Connection.open(self._settings, connection_name(), where)
        self._read_from.watch_coming(self._read_what_fits)
        return ConsumingSession(
            self._read_from,
            self._settings,
            self._topology,
            self._lanes,
            self._header_check,
            self,
            gives_back=lambda: bool(self._pauses),
            on_change=self._consuming.wake,
            on_reconciled=self._on_change,
        )

    async def _open_publishing(self, where: Address) -> PublishingSession:
        connection = await Connection.open(self._settings, connection_name("autotag-publishing"), where)
        return PublishingSession(connection, self._settings, self._topology, self._publishing.wake)

    # Ageing

    async def _give_back_what_is_too_old(self) -> None:
        """Requeue what has been in hand for longer than `amqp.hold_s`, before RabbitMQ's `consumer_timeout` does.

        The consumer ends first, so that RabbitMQ does not deliver the same event at once. While nothing can be
        published it stays ended, and an event comes back once at most, however long that lasts.
        """
        hold_s = self._settings.hold_s
        interval_s = min(_LONGEST_AGE_CHECK_INTERVAL_S, hold_s / _AGE_CHECKS_PER_HOLD)
        while True:
            await asyncio.sleep(interval_s)
            session = self._consuming.session
            if session is None:
                continue
            try:
                await session.widen()
                await session.give_back(time.monotonic() - hold_s)
            except Exception:  # noqa: BLE001 - the next check must take place
                _log.exception("unexpected error while looking for events that are in hand for too long")

    # State

    @property
    def _blocked(self) -> str | None:
        session = self._publishing.session
        return session.connection.blocked if session is not None else None

    def _all_pauses(self) -> dict[str, BrokerPause]:
        session = self._consuming.session
        lanes = session.faults if session is not None else {}
        of_lanes = {_LANE_PAUSE.format(lane=lane): pause for lane, pause in lanes.items()}
        return {**self._pauses, **self._outbox.pauses, **of_lanes, **self._bytes_pause()}

    def _bytes_pause(self) -> dict[str, BrokerPause]:
        if self._full_since_s is None or not self.is_full:
            return {}
        message = (
            "the messages in hand and the next have more than amqp.maximum_bytes_in_hand "
            f"({self._settings.maximum_bytes_in_hand} bytes) together: no more are read until some have ended; "
            "send large images by path or url, or raise it"
        )
        return {BYTES_IN_HAND: BrokerPause(self._full_since_s, message)}

    def _on_change(self) -> None:
        """Something may have changed: pass it on to the outbox, to the consumers, and to `on_state`."""
        session = self._publishing.session
        self._outbox.on_session(session)
        if session is not None and not session.connection.lost.done():
            self._outbox.on_blocked(session.connection.blocked)
        if self.is_paused != self._was_paused:
            self._was_paused = self.is_paused
            self._consuming.wake()
        self._update_state()

    def _update_state(self) -> None:
        before = self._snapshot
        phase = self._phase(before)
        if phase in (BrokerPhase.CONSUMING, BrokerPhase.PAUSED) and not before.connected:
            self._reconnects += self._connected_once
            self._connected_once = True
        error = self._consuming.error or self._publishing.error
        session = self._consuming.session
        now = BrokerState(
            phase,
            since_s=before.since_s if phase is before.phase else time.monotonic(),
            wanted=before.wanted,
            lanes=session.lanes if session else frozenset(),
            pauses=self._all_pauses(),
            blocked=self._blocked,
            last_error=str(error) if error is not None else None,
            last_error_reason=error.reason if error is not None else None,
            version=str(session.connection.version) if session else before.version,
            reconnects=self._reconnects,
            unmarked=self._header_check.unmarked,
        )
        if now.ready or (now.connected and self._pauses and session is not None and session.looked_at):
            self._started.set()
        if now == before:
            return
        self._snapshot = now
        # Scheduled instead of called: an exception in it then reaches the event loop's handler and not our caller.
        asyncio.get_running_loop().call_soon(self._on_state, now)

    def _phase(self, before: BrokerState) -> BrokerPhase:
        phases = {self._consuming.phase, self._publishing.phase}
        if UpkeepPhase.CLOSED in phases:
            return BrokerPhase.CLOSED
        if UpkeepPhase.WAITING in phases or self._consuming.is_losing or self._publishing.is_losing:
            return BrokerPhase.WAITING
        if UpkeepPhase.CONNECTING in phases:
            return BrokerPhase.CONNECTING
        if self._pauses or self._outbox.pauses or self.is_full:
            return BrokerPhase.PAUSED
        session = self._consuming.session
        known = session.lanes | set(session.faults) if session is not None else set()
        if known >= set(self._lanes):
            return BrokerPhase.CONSUMING
        return before.phase if before.connected else BrokerPhase.CONNECTING

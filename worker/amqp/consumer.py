"""Consuming one lane: a channel of its own, with a consumer and its prefetch, and the deliveries in hand on it.

A delivery belongs to its channel and its consumer: it can be settled there only, and is lost with them, since RabbitMQ
then requeues it. A lane that cannot be consumed costs the other lane nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from pika import exceptions as pika_errors

from worker.amqp.connection import Channel
from worker.amqp.delivery import Delivery
from worker.amqp.mark import HeaderCheck
from worker.amqp.origin import origin_on_arrival
from worker.amqp.parameters import connection_name
from worker.amqp.republish import is_probe
from worker.amqp.topology import Lane

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """What takes the deliveries. Its methods are called in the event loop and must not block."""

    @property
    def is_paused(self) -> bool:
        """Whether arriving deliveries are held instead of being handed over."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether there is no room for what still arrives after the consumers were ended: it is requeued."""
        ...

    def on_delivery(self, delivery: Delivery) -> None:
        """A delivery has arrived."""

    def on_lost(self, delivery: Delivery) -> None:
        """A delivery that was not settled is no longer ours."""

    def on_bytes(self, change: int) -> None:
        """The bodies in hand have become larger, or smaller, by this many bytes."""


class Consumer:
    """One lane's consumer, and what is in hand of it.

    `check` has dropped the headers that only look like ours. `on_cancelled` is called when RabbitMQ has ended the
    consumer, as it does when the queue is deleted. Deliveries that arrive while the receiver is paused are held: they
    are delivered when the pause ends or, where the pause is for others to take them (`requeue_held`), requeued once the
    consumer has ended. Requeued at once, they would be redelivered immediately, again and again, until they reached
    the delivery limit.
    """

    def __init__(
        self, lane: Lane, channel: Channel, check: HeaderCheck, receiver: Receiver, on_cancelled: Callable[[], None]
    ) -> None:
        self.lane = lane
        self._channel = channel
        self._check = check
        self._receiver = receiver
        self._virtual_host = channel.connection.broker.virtual_host
        self._on_cancelled = on_cancelled
        self._tag: str | None = None
        """From the request to RabbitMQ on."""
        self._confirmed = False
        self._consumers = 0
        self._unsettled: dict[int, Delivery] = {}
        """In the order of their arrival."""
        self._held: list[Delivery] = []
        self.prefetch = 0
        """The consumer's own, when it was last begun."""
        self._room_at = -1
        self._on_room: Callable[[], None] = lambda: None
        channel.raw.add_on_cancel_callback(self._on_cancel)
        channel.closed.add_done_callback(lambda _: self.lose_all())

    @property
    def closed(self) -> asyncio.Future[BaseException]:
        """Done once the channel is closed, with the reason; nothing can be consumed or settled after that."""
        return self._channel.closed

    @property
    def is_open(self) -> bool:
        """Whether it can still consume and settle."""
        return self._channel.is_open

    @property
    def consuming(self) -> bool:
        """Whether RabbitMQ delivers the lane's messages to it."""
        return self._tag is not None and self._confirmed and self._channel.is_open

    @property
    def begun(self) -> bool:
        """Whether RabbitMQ delivers to it, or will once it has read the request."""
        return self._tag is not None and self._channel.is_open

    @property
    def unsettled(self) -> int:
        """How many deliveries are in hand and not settled."""
        return len(self._unsettled)

    @property
    def oldest_s(self) -> float | None:
        """When the oldest delivery in hand arrived (monotonic)."""
        return next((each.received_at_s for each in self._unsettled.values()), None)

    def room(self, prefetch: int, on_room: Callable[[], None]) -> int:
        """The prefetch that a new consumer may have: all of it, or less while more than half of it is in hand already.

        RabbitMQ counts a prefetch for each consumer: without this, in hand could be twice the prefetch after a pause,
        three times after the next. Where it is less, `on_room` is called once a further consumer may have all.
        """
        in_hand, half = len(self._unsettled), prefetch // 2
        if in_hand <= half:
            self._room_at = -1
            return prefetch
        self._room_at, self._on_room = half, on_room
        return max(1, prefetch - in_hand)

    async def consume(self, queue: str, prefetch: int) -> None:
        """Start consuming, with at most `prefetch` unsettled deliveries.

        Raises what `Channel.wait` raises, and then the channel is given up with all that is in hand: RabbitMQ may have
        a consumer there, or get one yet, that nobody would end.
        """
        raw = self._channel.raw
        self.prefetch = prefetch
        self._consumers += 1
        tag = f"{self.lane}.{self._consumers}.{connection_name()}"

        def on_message(_channel: object, method: Any, properties: Any, body: bytes) -> None:
            self._receive(method, properties, body)

        action = f"consuming from queue {queue}"
        try:
            await self._channel.call(raw.basic_qos, prefetch_count=prefetch, action="setting the prefetch")
            self._tag = tag  # first: RabbitMQ's cancel may be read together with its reply
            await self._channel.call(raw.basic_consume, queue, on_message, consumer_tag=tag, action=action)
        except BaseException:
            self._tag = None
            self._channel.abandon()
            self.lose_all()
            raise
        self._confirmed = self._tag == tag

    async def cancel(self) -> None:
        """Stop consuming. Deliveries in hand stay in hand. Raises what `Channel.wait` raises."""
        raw, tag = self._channel.raw, self._tag
        self._tag, self._confirmed = None, False

        def basic_cancel(**options: Any) -> None:
            raw.basic_cancel(tag, **options)
            # pika would reject what still arrives, which counts towards the delivery limit. Here it is held.
            raw._cancelled.discard(tag)

        await self._channel.call(basic_cancel, action=f"ending the consumer of lane {self.lane}")

    def deliver_held(self) -> None:
        """Deliver what was held during a pause that has ended."""
        held, self._held = self._held, []
        for delivery in held:
            self._deliver(delivery)

    def requeue_held(self) -> None:
        """Return what was held during a pause to the queue, for other workers. Only once the consumer has ended."""
        held, self._held = self._held, []
        for delivery in held:
            delivery.requeue()

    def give_back(self, received_before_s: float) -> int:
        """Requeue the deliveries in hand that arrived before this time (monotonic); returns how many.

        Only once the consumer has ended, or is being ended: RabbitMQ would deliver them again at once.
        """
        overdue = [each for each in self._unsettled.values() if each.received_at_s < received_before_s]
        self._held = [each for each in self._held if each not in overdue]
        for delivery in overdue:
            delivery.requeue()
            self._lose(delivery)
        return len(overdue)

    def lose_all(self) -> None:
        """All that is in hand is no longer ours: RabbitMQ has requeued it."""
        lost, self._unsettled, self._held = list(self._unsettled.values()), {}, []
        self._receiver.on_bytes(-sum(len(each.body) for each in lost))
        for delivery in lost:
            self._lose(delivery)

    def ack(self, tag: int) -> None:
        """Acknowledge a delivery: RabbitMQ deletes the message."""
        self._settle(tag, "ack", self._channel.raw.basic_ack)

    def requeue(self, tag: int) -> None:
        """Return a delivery to its queue."""
        self._settle(tag, "requeue", self._channel.raw.basic_nack)

    def reject(self, tag: int) -> None:
        """Have RabbitMQ move a delivery to its queue's dead letters."""
        self._settle(tag, "reject", lambda number: self._channel.raw.basic_reject(number, requeue=False))

    def _settle(self, tag: int, verb: str, method: Callable[[int], None]) -> None:
        delivery = self._unsettled.pop(tag, None)
        if delivery is None:  # lost with its channel or consumer: the tag could be another delivery's on the next one
            _log.info("a delivery was not settled, it is no longer ours and comes again", verb=verb, delivery_tag=tag)
            return
        try:
            method(tag)
        except (pika_errors.ChannelWrongStateError, pika_errors.ConnectionWrongStateError):
            _log.info("a delivery was not settled, its channel is gone; it comes again", verb=verb, delivery_tag=tag)
        self._receiver.on_bytes(-len(delivery.body))
        if len(self._unsettled) == self._room_at:
            self._on_room()

    def _receive(self, method: Any, properties: Any, body: bytes) -> None:
        if not self._channel.is_open:  # given up, and RabbitMQ does not know it yet: it requeues this
            return
        tag = int(method.delivery_tag)
        if is_probe(properties, body):
            self._channel.raw.basic_ack(tag)  # a worker's of the retry queues, or of `autotag check`: it was routed
            return
        self._check.on_arrival(properties, body)  # before anything reads a header
        if self._receiver.is_full:
            self._channel.raw.basic_nack(tag)
            return
        arrived_from = origin_on_arrival(properties, method.exchange, self._virtual_host)
        received_at_s, redelivered = time.monotonic(), bool(method.redelivered)
        delivery = Delivery(
            body, properties, self.lane, tag, redelivered, received_at_s, self, arrived_from=arrived_from
        )
        self._unsettled[tag] = delivery
        self._receiver.on_bytes(len(body))
        if self._receiver.is_paused:
            self._held.append(delivery)
        else:
            self._deliver(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._receiver.on_delivery(delivery)
        except Exception:  # noqa: BLE001 - pika would close the connection, and all that is in hand would be requeued
            _log.exception(
                "a delivery could not be taken in; it goes back to its queue", message_id=delivery.message_id
            )
            if not delivery.settled:
                delivery.requeue()

    def _lose(self, delivery: Delivery) -> None:
        delivery.lose()
        try:
            self._receiver.on_lost(delivery)
        except Exception:  # noqa: BLE001 - the others are lost too, and must be reported
            _log.exception("the loss of a delivery could not be handled", message_id=delivery.message_id)

    def _on_cancel(self, frame: Any) -> None:
        if self._tag == frame.method.consumer_tag:
            self._tag, self._confirmed = None, False
            self._on_cancelled()

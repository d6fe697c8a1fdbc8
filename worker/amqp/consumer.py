"""Consuming: one channel with a consumer for each lane, each with a prefetch of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from pika import exceptions as pika_errors

from worker.amqp.connection import Channel
from worker.amqp.delivery import Delivery
from worker.amqp.mark import HeaderCheck
from worker.amqp.parameters import connection_name
from worker.amqp.topology import Lane

_log = structlog.get_logger(__name__)


class Consumer:
    """The consuming side of a connection. A delivery can be settled only on its own channel, while that is open.

    `on_delivery` is called for each delivery and must not block; `check` has dropped the headers that only look like
    ours. `on_cancelled` is called when RabbitMQ has ended a consumer, as it does when a queue is deleted. While
    `is_paused` returns true, arriving deliveries are held until their lane is cancelled, and requeued then. Requeued at
    once, they would be redelivered immediately, again and again, until they reached the delivery limit.
    """

    def __init__(
        self,
        channel: Channel,
        check: HeaderCheck,
        on_delivery: Callable[[Delivery], None],
        on_cancelled: Callable[[Lane], None],
        is_paused: Callable[[], bool],
    ) -> None:
        self._is_paused = is_paused
        self._channel = channel
        self._check = check
        self._on_delivery = on_delivery
        self._on_cancelled = on_cancelled
        self._tags: dict[Lane, str] = {}
        self._consumers = 0
        self._unsettled: set[int] = set()
        self._held: list[Delivery] = []
        channel.raw.add_on_cancel_callback(self._on_cancel)

    @property
    def closed(self) -> asyncio.Future[BaseException]:
        """Done once the channel is closed, with the reason; nothing can be consumed or settled after that."""
        return self._channel.closed

    @property
    def is_open(self) -> bool:
        """Whether it can still consume and settle."""
        return self._channel.is_open

    @property
    def lanes(self) -> frozenset[Lane]:
        """The lanes being consumed."""
        return frozenset(self._tags) if self._channel.is_open else frozenset()

    @property
    def unsettled(self) -> int:
        """How many deliveries are in hand and not settled."""
        return len(self._unsettled) if self._channel.is_open else 0

    async def consume(self, lane: Lane, queue: str, prefetch: int) -> None:
        """Start consuming a lane, with at most `prefetch` unsettled deliveries. Raises what `Channel.wait` raises."""
        raw = self._channel.raw
        self._consumers += 1
        tag = f"{lane}.{self._consumers}.{connection_name()}"
        # RabbitMQ applies a prefetch to the consumers started after it, which gives each lane its own.
        await self._channel.call(raw.basic_qos, prefetch_count=prefetch, action="setting the prefetch")

        def on_message(_channel: object, method: Any, properties: Any, body: bytes) -> None:
            self._receive(lane, method, properties, body)

        action = f"consuming from queue {queue}"
        await self._channel.call(raw.basic_consume, queue, on_message, consumer_tag=tag, action=action)
        self._tags[lane] = tag

    async def cancel(self, lane: Lane) -> None:
        """Stop consuming a lane. Deliveries in hand stay in hand; those that are held are requeued."""
        tag = self._tags.pop(lane)
        await self._channel.call(self._channel.raw.basic_cancel, tag, action=f"ending the consumer of lane {lane}")
        for delivery in self._take_held(lane):
            delivery.requeue()

    def deliver_held(self) -> None:
        """Deliver what was held during a pause that ended before its lane was cancelled."""
        for lane in self.lanes:
            for delivery in self._take_held(lane):
                self._deliver(delivery)

    def ack(self, tag: int) -> None:
        """Acknowledge a delivery of this channel: RabbitMQ deletes the message."""
        self._settle(tag, "ack", self._channel.raw.basic_ack)

    def requeue(self, tag: int) -> None:
        """Return a delivery of this channel to its queue."""
        self._settle(tag, "requeue", self._channel.raw.basic_nack)

    def _settle(self, tag: int, verb: str, method: Callable[[int], None]) -> None:
        self._unsettled.discard(tag)
        try:
            method(tag)
        except (pika_errors.ChannelWrongStateError, pika_errors.ConnectionWrongStateError):
            # A tag is valid on its own channel only. RabbitMQ has requeued the delivery and will deliver it again.
            _log.info(
                "a delivery was not settled, its channel is gone; it will come again", verb=verb, delivery_tag=tag
            )

    def _receive(self, lane: Lane, method: Any, properties: Any, body: bytes) -> None:
        tag = int(method.delivery_tag)
        self._unsettled.add(tag)
        self._check.on_arrival(properties, body)  # before anything reads a header
        delivery = Delivery(body, properties, lane, tag, bool(method.redelivered), time.monotonic(), self)
        if self._is_paused():
            self._held.append(delivery)
        else:
            self._deliver(delivery)

    def _take_held(self, lane: Lane) -> list[Delivery]:
        taken = [delivery for delivery in self._held if delivery.lane is lane]
        self._held = [delivery for delivery in self._held if delivery.lane is not lane]
        return taken

    def _deliver(self, delivery: Delivery) -> None:
        try:
            self._on_delivery(delivery)
        except Exception:  # noqa: BLE001 - pika would close the connection, and all that is in hand would be requeued
            _log.exception(
                "a delivery could not be taken in; it goes back to its queue", message_id=delivery.message_id
            )
            if not delivery.settled:
                delivery.requeue()

    def _on_cancel(self, frame: Any) -> None:
        for lane, tag in list(self._tags.items()):
            if tag == frame.method.consumer_tag:
                del self._tags[lane]
                self._on_cancelled(lane)

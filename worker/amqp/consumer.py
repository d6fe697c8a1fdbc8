"""Consuming: one channel, a consumer for each lane, each with its own bound on what it holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog
from pika import exceptions as pika_errors

from worker.amqp.connection import Channel
from worker.amqp.delivery import Delivery
from worker.amqp.parameters import connection_name
from worker.amqp.topology import Lane

_log = structlog.get_logger(__name__)


class Consumer:
    """The consuming side of a link. Deliveries settle on the channel they came on or, once it is gone, not at all.

    `on_delivery` is called for each delivery and must not wait; `on_cancelled` when the broker has ended a consumer,
    as it does when its queue is deleted. While `refusing` says so, what still arrives is held until its lane is
    cancelled, and then given back; given back at once it would come straight back, until it had come too often.
    """

    def __init__(
        self,
        channel: Channel,
        on_delivery: Callable[[Delivery], None],
        on_cancelled: Callable[[Lane], None],
        refusing: Callable[[], bool],
    ) -> None:
        self._refusing = refusing
        self._channel = channel
        self._on_delivery = on_delivery
        self._on_cancelled = on_cancelled
        self._tags: dict[Lane, str] = {}
        self._consumers = 0
        self._unsettled: set[int] = set()
        self._held: list[Delivery] = []
        channel.raw.add_on_cancel_callback(self._on_cancel)

    @property
    def closed(self) -> asyncio.Future[BaseException]:
        """Done when it can consume and settle no longer."""
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
        """Deliveries in hand that the broker waits to hear about."""
        return len(self._unsettled) if self._channel.is_open else 0

    async def consume(self, lane: Lane, queue: str, prefetch: int) -> None:
        """Begin to consume a lane, at most `prefetch` unsettled deliveries at once."""
        raw = self._channel.raw
        self._consumers += 1
        tag = f"{lane}.{self._consumers}.{connection_name()}"
        # RabbitMQ applies a prefetch to the consumers begun after it, so that each lane has its own.
        await self._channel.call(raw.basic_qos, prefetch_count=prefetch, doing="setting the prefetch")

        def on_message(_channel: object, method: Any, properties: Any, body: bytes) -> None:
            self._receive(lane, method, properties, body)

        doing = f"consuming from queue {queue}"
        await self._channel.call(raw.basic_consume, queue, on_message, consumer_tag=tag, doing=doing)
        self._tags[lane] = tag

    async def cancel(self, lane: Lane) -> None:
        """Stop consuming a lane. What was handed on stays in hand; what was on its way to us goes back to its queue."""
        tag = self._tags.pop(lane)
        await self._channel.call(self._channel.raw.basic_cancel, tag, doing=f"ending the consumer of lane {lane}")
        for delivery in self._take_held(lane):
            delivery.requeue()

    def hand_on(self) -> None:
        """Hand on what was held, for whoever refused it has thought better of it."""
        for lane in self.lanes:
            for delivery in self._take_held(lane):
                self._hand_on(delivery)

    def ack(self, tag: int) -> None:
        """Settle a delivery of this channel."""
        self._settle(tag, "ack", self._channel.raw.basic_ack)

    def requeue(self, tag: int) -> None:
        """Give back a delivery of this channel."""
        self._settle(tag, "requeue", self._channel.raw.basic_nack)

    def _settle(self, tag: int, verb: str, method: Callable[[int], None]) -> None:
        self._unsettled.discard(tag)
        try:
            method(tag)
        except (pika_errors.ChannelWrongStateError, pika_errors.ConnectionWrongStateError):
            # Tags mean nothing on any other channel. The broker has taken the delivery back and delivers it again.
            _log.info(
                "a delivery was not settled, its channel is gone; it will come again", verb=verb, delivery_tag=tag
            )

    def _receive(self, lane: Lane, method: Any, properties: Any, body: bytes) -> None:
        tag = int(method.delivery_tag)
        self._unsettled.add(tag)
        delivery = Delivery(body, properties, lane, tag, bool(method.redelivered), time.monotonic(), self)
        if self._refusing():
            self._held.append(delivery)
        else:
            self._hand_on(delivery)

    def _take_held(self, lane: Lane) -> list[Delivery]:
        taken = [delivery for delivery in self._held if delivery.lane is lane]
        self._held = [delivery for delivery in self._held if delivery.lane is not lane]
        return taken

    def _hand_on(self, delivery: Delivery) -> None:
        try:
            self._on_delivery(delivery)
        except Exception:  # noqa: BLE001 - pika would take the connection down, and with it all else that is in hand
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

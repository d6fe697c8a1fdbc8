"""Publishing with confirms, pipelined: any number of messages may be on their way, each with its own answer.

RabbitMQ numbers what a channel publishes from 1, and confirms by number, one by one or all up to one; a message for
which no queue is bound is first returned and then confirmed (https://www.rabbitmq.com/docs/confirms).
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pika
import structlog
from pika import exceptions as pika_errors
from pika import spec

from worker.amqp.connection import Channel, Connection
from worker.amqp.diagnosis import brief
from worker.amqp.errors import NotConfirmed, NotPublished, PublishRefused, Unpublishable, Unroutable

_log = structlog.get_logger(__name__)

_TOO_LARGE = re.compile(r"message size (?P<size>\d+) .*?larger than .*?max size (?P<maximum>\d+)")
_LOOK_EVERY_S = 1.0
_NOT_ENCODABLE = (
    pika_errors.ShortStringTooLong,
    pika_errors.UnsupportedAMQPFieldException,
    struct.error,
    ValueError,
    TypeError,
    AttributeError,  # what pika raises for a header whose name is no text
)


@dataclass(slots=True)
class _InFlight:
    """A message that is not confirmed yet."""

    confirmed: asyncio.Future[None]
    exchange: str
    routing_key: str
    message_id: str | None
    size_bytes: int
    sent_at_s: float
    returned: str | None = None

    def fail(self, error: NotPublished) -> None:
        if not self.confirmed.done():
            self.confirmed.set_exception(error)


class Publisher:
    """The publishing side of a link: a channel in confirm mode, and what is in flight on it."""

    def __init__(self, channel: Channel, confirm_timeout_s: float) -> None:
        self._channel = channel
        self._confirm_timeout_s = confirm_timeout_s
        self._in_flight: dict[int, _InFlight] = {}
        self._last_number = 0
        self._oldest_number = 1
        self._look: asyncio.TimerHandle | None = None
        self.maximum_bytes: int | None = None
        channel.raw.add_on_return_callback(self._on_return)
        channel.closed.add_done_callback(self._on_closed)

    @classmethod
    async def open(cls, link: Connection, confirm_timeout_s: float) -> Self:
        """Open a channel of its own on `link`."""
        channel = await link.channel()
        publisher = cls(channel, confirm_timeout_s)
        await channel.call(channel.raw.confirm_delivery, publisher._on_confirm, doing="switching publisher confirms on")
        return publisher

    @property
    def is_open(self) -> bool:
        """Whether it can still publish."""
        return self._channel.is_open

    @property
    def in_flight(self) -> int:
        """Messages that are sent and not yet confirmed."""
        return len(self._in_flight)

    @property
    def closed(self) -> asyncio.Future[BaseException]:
        """Done when it can publish no longer."""
        return self._channel.closed

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: pika.BasicProperties,
    ) -> None:
        """Send a message and wait until the broker has it safe.

        Raises Unroutable, PublishRefused, Unpublishable, or NotConfirmed. The time for a confirm does not run while the
        broker has blocked the connection: it has the message in its socket and will get to it.
        """
        confirmed = self._send(exchange, routing_key, body, properties)
        await confirmed

    def _send(
        self, exchange: str, routing_key: str, body: bytes, properties: pika.BasicProperties
    ) -> asyncio.Future[None]:
        if not self._channel.is_open:
            raise NotConfirmed(f"message {properties.message_id} was not sent: the channel is closed")
        if self.maximum_bytes is not None and len(body) > self.maximum_bytes:
            raise _too_large(properties.message_id, len(body), self.maximum_bytes)
        try:
            self._channel.raw.basic_publish(exchange, routing_key, body, properties, mandatory=True)
        except _NOT_ENCODABLE as error:
            raise Unpublishable(
                f"message {properties.message_id} to {exchange!r} cannot be written as AMQP: {brief(error)}",
                reason="message_not_encodable",
            ) from error
        # Nothing was awaited since the channel was looked at, so the broker counts this message as we do.
        self._last_number += 1
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight[self._last_number] = _InFlight(
            confirmed, exchange, routing_key, properties.message_id, len(body), time.monotonic()
        )
        self._look_again()
        return confirmed

    def _on_confirm(self, frame: Any) -> None:
        answer = frame.method
        number = answer.delivery_tag
        numbers = range(self._oldest_number, number + 1) if answer.multiple else (number,)
        refused = isinstance(answer, spec.Basic.Nack)
        for each in numbers:
            message = self._in_flight.pop(each, None)
            if message is not None and not message.confirmed.done():
                self._settle(message, refused=refused)
        if answer.multiple:
            self._oldest_number = number + 1

    def _settle(self, message: _InFlight, *, refused: bool) -> None:
        if refused:
            message.fail(
                PublishRefused(
                    f"RabbitMQ refused message {message.message_id} to {message.exchange!r} "
                    f"({message.routing_key!r}): a queue is full or has lost its majority"
                )
            )
        elif message.returned is not None:
            message.fail(
                Unroutable(
                    f"RabbitMQ has no queue for message {message.message_id} to {message.exchange!r} "
                    f"({message.routing_key!r}): {message.returned}; bind a queue there"
                )
            )
        else:
            message.confirmed.set_result(None)

    def _on_return(self, _channel: object, method: Any, properties: Any, _body: bytes) -> None:
        """Note which message came back. Its number is not told; equal ones in flight are equally unroutable."""
        for message in self._in_flight.values():
            if (
                message.returned is None
                and message.message_id == properties.message_id
                and message.routing_key == method.routing_key
                and message.exchange == method.exchange
            ):
                message.returned = str(method.reply_text)
                return

    def _on_closed(self, closed: asyncio.Future[BaseException]) -> None:
        """The channel is gone: nobody will confirm what is in flight. One of them may have been too large."""
        if self._look is not None:
            self._look.cancel()
        found = _TOO_LARGE.search(str(closed.result()))
        size_bytes = int(found["size"]) if found else None
        if found:
            self.maximum_bytes = int(found["maximum"])
        for message in self._in_flight.values():
            if found and message.size_bytes == size_bytes:
                message.fail(_too_large(message.message_id, message.size_bytes, int(found["maximum"])))
            else:
                message.fail(
                    NotConfirmed(
                        f"message {message.message_id} was sent but not confirmed: {brief(closed.result())}; "
                        "it may have arrived"
                    )
                )
        self._in_flight.clear()

    def _look_again(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look_for_the_forgotten)

    def _look_for_the_forgotten(self) -> None:
        """Give up on messages that wait for a confirm for too long. One timer for all is cheaper than one for each."""
        self._look = None
        silent_for_s = self._channel.link.silent_for_s
        late = [
            number
            for number, message in self._in_flight.items()
            if silent_for_s(message.sent_at_s) > self._confirm_timeout_s
        ]
        for number in late:
            message = self._in_flight.pop(number)
            message.fail(
                NotConfirmed(
                    f"RabbitMQ did not confirm message {message.message_id} within {self._confirm_timeout_s:g} s; "
                    "it may have arrived"
                )
            )
        if late:
            _log.warning(
                "messages were not confirmed in time", messages=len(late), broker=str(self._channel.link.broker)
            )
        if self._in_flight:
            self._look_again()


def message_properties(
    *, content_type: str | None, headers: Mapping[str, object], message_id: str, persistent: bool = True
) -> pika.BasicProperties:
    """Properties of a message of ours."""
    return pika.BasicProperties(
        content_type=content_type,
        headers=dict(headers) or None,
        message_id=message_id,
        delivery_mode=2 if persistent else 1,
    )


def _too_large(message_id: str | None, size_bytes: int, maximum_bytes: int) -> Unpublishable:
    return Unpublishable(
        f"message {message_id} has {size_bytes} bytes, RabbitMQ takes at most {maximum_bytes} (its max_message_size): "
        "put the image where `path` or `url` can name it",
        reason="message_too_large",
    )

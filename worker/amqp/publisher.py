"""Publishing with confirms, pipelined: any number of messages may be in flight, each with a confirm of its own.

RabbitMQ numbers the messages of a channel from 1, and confirms either one number or all numbers up to one. A message
for which no queue is bound is first returned and then confirmed (https://www.rabbitmq.com/docs/confirms).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import pika
import structlog
from pika import exceptions as pika_errors
from pika import spec

from worker.amqp.connection import Channel, Connection
from worker.amqp.diagnosis import brief
from worker.amqp.errors import TOO_LARGE, NotConfirmed, NotPublished, PublishRefused, Unpublishable, Unroutable

_log = structlog.get_logger(__name__)

_TOO_LARGE = re.compile(r"message size (?P<size>\d+) .*?larger than .*?max size (?P<maximum>\d+)")
_PERHAPS_TOO_LARGE = re.compile(r"message size|too large|max.?message.?size", re.IGNORECASE)
_LARGE_BYTES = 1 << 20
"""Where RabbitMQ's refusal gives no numbers, a message above this is taken for the one that was too large."""

_TIMEOUT_CHECK_INTERVAL_S = 1.0


@dataclass(slots=True)
class _InFlight:
    """A message that is published and not confirmed yet."""

    confirmed: asyncio.Future[None]
    exchange: str
    routing_key: str
    message_id: str | None
    size_bytes: int
    sent_at_s: float
    returned: str | None = None
    """RabbitMQ's text, if it has returned the message as unroutable."""

    def fail(self, error: NotPublished) -> None:
        if not self.confirmed.done():
            self.confirmed.set_exception(error)


@dataclass(frozen=True, slots=True)
class Besides:
    """What is done besides publishing to an exchange: with what no queue takes there, and with a copy of everything."""

    unrouted: str
    copy: Callable[[str, bytes, pika.BasicProperties], None]
    """Called with routing key, body and properties of each message that was confirmed."""


class Publisher:
    """The publishing side of a connection: a channel in confirm mode, and the messages in flight on it.

    `maximum_bytes` is RabbitMQ's `max_message_size`, once it has refused a message for it; larger ones are then refused
    here, since RabbitMQ closes the channel over them.
    """

    def __init__(self, channel: Channel, confirm_timeout_s: float) -> None:
        self._channel = channel
        self._confirm_timeout_s = confirm_timeout_s
        self._in_flight: dict[int, _InFlight] = {}
        self._last_number = 0
        self._timeout_check: asyncio.TimerHandle | None = None
        self.maximum_bytes: int | None = None
        self.besides: dict[str, Besides] = {}
        """By exchange."""
        channel.raw.add_on_return_callback(self._on_return)
        channel.closed.add_done_callback(self._on_closed)

    @classmethod
    async def open(cls, connection: Connection, confirm_timeout_s: float) -> Self:
        """Open a publisher, with a channel of its own, on `connection`. Raises what `Channel.wait` raises."""
        channel = await connection.channel()
        publisher = cls(channel, confirm_timeout_s)
        await channel.call(
            channel.raw.confirm_delivery, publisher._on_confirm, action="switching publisher confirms on"
        )
        return publisher

    @property
    def is_open(self) -> bool:
        """Whether it can still publish."""
        return self._channel.is_open

    @property
    def in_flight(self) -> int:
        """How many messages are sent and not yet confirmed."""
        return len(self._in_flight)

    @property
    def closed(self) -> asyncio.Future[BaseException]:
        """Done once the channel is closed, with the reason."""
        return self._channel.closed

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: pika.BasicProperties,
    ) -> None:
        """Send a message and wait until RabbitMQ has confirmed it.

        Raises Unroutable, PublishRefused, Unpublishable, or NotConfirmed. `confirm_timeout_s` does not run while
        RabbitMQ blocks the connection: the message waits in its socket, and is read once the block ends.
        """
        besides = self.besides.get(exchange)
        try:
            await self._send(exchange, routing_key, body, properties, mandatory=True)
        except Unroutable:
            if besides is None:
                raise
            await self._send(besides.unrouted, routing_key, body, properties, mandatory=True)
        if besides is not None:
            besides.copy(routing_key, body, properties)

    def send_unconfirmed(self, exchange: str, routing_key: str, body: bytes, properties: pika.BasicProperties) -> None:
        """Send what nobody waits for, and what may be missed. Raises nothing."""
        with suppress(NotPublished):
            self._send(exchange, routing_key, body, properties).add_done_callback(lambda sent: sent.exception())

    async def publish_into_nothing(self, direct_exchange: str) -> None:
        """Publish a message whose key no queue is bound for; returns when RabbitMQ has confirmed it. No queue gets it.

        Raises what `publish` raises.
        """
        key = f"probe.{uuid.uuid4()}"
        await self._send(direct_exchange, key, b"", message_properties(content_type=None, headers={}, message_id=key))

    def _send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: pika.BasicProperties,
        *,
        mandatory: bool = False,
    ) -> asyncio.Future[None]:
        if not self._channel.is_open:
            raise NotConfirmed(f"message {properties.message_id} was not sent: the channel is closed")
        if self.maximum_bytes is not None and len(body) > self.maximum_bytes:
            raise _too_large(properties.message_id, len(body), self.maximum_bytes)
        try:
            self._channel.raw.basic_publish(exchange, routing_key, body, properties, mandatory=mandatory)
        except (pika_errors.ChannelWrongStateError, pika_errors.ConnectionWrongStateError, MemoryError) as error:
            raise NotConfirmed(f"message {properties.message_id} was not sent: {brief(error)}") from error
        except Exception as error:
            # Whatever a header can do to pika's encoder (a list of itself 900 deep), nothing has been sent of it.
            raise Unpublishable(
                f"message {properties.message_id} to {exchange!r} cannot be written as AMQP: {brief(error)}",
                reason="message_not_encodable",
            ) from error
        # Nothing was awaited since the check that the channel is open, so our number is RabbitMQ's number.
        self._last_number += 1
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight[self._last_number] = _InFlight(
            confirmed, exchange, routing_key, properties.message_id, len(body), time.monotonic()
        )
        self._schedule_timeout_check()
        return confirmed

    def _on_confirm(self, frame: Any) -> None:
        confirm = frame.method
        number = confirm.delivery_tag
        numbers = self._in_flight_up_to(number) if confirm.multiple else (number,)
        refused = isinstance(confirm, spec.Basic.Nack)
        for each in numbers:
            message = self._in_flight.pop(each, None)
            if message is not None and not message.confirmed.done():
                self._settle(message, refused=refused)

    def _in_flight_up_to(self, number: int) -> list[int]:
        """The messages in flight up to a number: they are kept in the order in which they were sent."""
        return list(itertools.takewhile(lambda each: each <= number, self._in_flight))

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
        """Mark the returned message. RabbitMQ does not send its number, but equal messages are equally unroutable."""
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
        """Fail everything in flight, since no confirm can arrive any more. One message may have been too large."""
        if self._timeout_check is not None:
            self._timeout_check.cancel()
        size_bytes = self._size_refused(str(closed.result()))
        for message in self._in_flight.values():
            if message.size_bytes == size_bytes and self.maximum_bytes is not None:
                message.fail(_too_large(message.message_id, message.size_bytes, self.maximum_bytes))
            else:
                message.fail(
                    NotConfirmed(
                        f"message {message.message_id} was sent but not confirmed: {brief(closed.result())}; "
                        "it may have arrived"
                    )
                )
        self._in_flight.clear()

    def _size_refused(self, text: str) -> int | None:
        """The size of the message over which RabbitMQ has closed the channel, if it was for its size; learns the limit.

        Only messages of that size are refused for good: a limit of which no number is known is taken to be just below.
        """
        if (found := _TOO_LARGE.search(text)) is not None:
            self.maximum_bytes = int(found["maximum"])
            return int(found["size"])
        largest = max((message.size_bytes for message in self._in_flight.values()), default=0)
        if largest > _LARGE_BYTES and _PERHAPS_TOO_LARGE.search(text):
            self.maximum_bytes = largest - 1
            return largest
        return None

    def _schedule_timeout_check(self) -> None:
        if self._timeout_check is None:
            loop = asyncio.get_running_loop()
            self._timeout_check = loop.call_later(_TIMEOUT_CHECK_INTERVAL_S, self._fail_overdue)

    def _fail_overdue(self) -> None:
        """Fail messages whose confirm is overdue. One timer for all messages is cheaper than one for each."""
        self._timeout_check = None
        silent_for_s = self._channel.connection.silent_for_s
        overdue = [
            number
            for number, message in self._in_flight.items()
            if silent_for_s(message.sent_at_s) > self._confirm_timeout_s
        ]
        for number in overdue:
            message = self._in_flight.pop(number)
            message.fail(
                NotConfirmed(
                    f"RabbitMQ did not confirm message {message.message_id} within {self._confirm_timeout_s:g} s; "
                    "it may have arrived"
                )
            )
        if overdue:
            _log.warning(
                "messages were not confirmed in time",
                messages=len(overdue),
                broker=str(self._channel.connection.broker),
            )
        if self._in_flight:
            self._schedule_timeout_check()


def message_properties(
    *,
    content_type: str | None,
    headers: Mapping[str, object],
    message_id: str,
    persistent: bool = True,
    user: str | None = None,
) -> pika.BasicProperties:
    """AMQP properties of a message that we publish. `user`: to be vouched for by RabbitMQ as its publisher."""
    return pika.BasicProperties(
        content_type=content_type,
        headers=dict(headers) or None,
        message_id=message_id,
        delivery_mode=2 if persistent else 1,
        user_id=user,
    )


def _too_large(message_id: str | None, size_bytes: int, maximum_bytes: int) -> Unpublishable:
    return Unpublishable(
        f"message {message_id} has {size_bytes} bytes, RabbitMQ takes at most {maximum_bytes} (its max_message_size): "
        "put the image where `path` or `url` can name it",
        reason=TOO_LARGE,
    )

"""Consumes the results of one connection, and publishes those that wait and its dead letters.

Results are taken over one connection and published over another, as everywhere (see `session`). A pause closes the
channel: RabbitMQ then has everything again that is in hand, and what is acked afterwards is delivered once more, which
a merge does not mind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import pika
import structlog
from pika import exceptions as pika_errors

from worker.amqp.connection import Channel, Connection, connected
from worker.amqp.declare import declare, find_missing
from worker.amqp.delivery import Delivery
from worker.amqp.errors import BrokerUnreachable, NotPublished, Unpublishable
from worker.amqp.mark import HeaderCheck, HeaderMark
from worker.amqp.parameters import connection_name
from worker.amqp.publisher import Publisher
from worker.amqp.republish import CONNECTION_HEADER, dead_letter_properties, is_probe, retry_properties
from worker.amqp.result_topology import CONNECT, ResultTopology
from worker.amqp.topology import Lane
from worker.errors import AutotagError
from worker.settings import AmqpSettings

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S: Final = 0.25
_REPUBLISH_PAUSE_S: Final = 1.0


class ResultQueue:
    """One connection's results, for as long as `run` runs. `on_result` is called in the event loop and must not block.

    `fault` is why nothing arrives, in words; None while results can.
    """

    def __init__(
        self, settings: AmqpSettings, layout: ResultTopology, prefetch: int, on_result: Callable[[Delivery], None]
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._prefetch = prefetch
        self._on_result = on_result
        self._mark = HeaderMark.of(settings)
        self._check = HeaderCheck(self._mark)
        self._paused = False
        self._changed = asyncio.Event()
        self._channel: _ResultChannel | None = None
        self._publisher: Publisher | None = None
        self.fault: str | None = "not connected yet"

    @property
    def is_consuming(self) -> bool:
        """Whether results arrive."""
        return self._channel is not None and self._channel.is_open

    @property
    def in_hand(self) -> int:
        """How many results are not settled."""
        return self._channel.in_hand if self._channel is not None else 0

    def pause(self) -> None:
        """Take no results; what is in hand goes back."""
        self._paused = True
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._changed.set()

    def resume(self) -> None:
        """Take results again."""
        self._paused = False
        self._changed.set()

    async def run(self) -> None:
        """Consume until cancelled, over one pair of connections after another."""
        pause_s = _FIRST_PAUSE_S
        while True:
            began_s = time.monotonic()
            try:
                await self._run_once()
            except AutotagError as error:
                if self.fault != str(error):
                    _log.warning("results cannot be taken", connection=self._layout.name, why=str(error))
                self.fault = str(error)
            finally:
                self._lose()
            if time.monotonic() - began_s > self._settings.reconnect_max_s:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._settings.reconnect_max_s)

    async def wait_longer(
        self, delivery: Delivery, delay_s: float, headers: Mapping[str, object], attempt: int
    ) -> bool:
        """Have a result delivered once more after at least `delay_s`, or the longest delay there is, and ack it.

        False where the delivery was lost before that: then it comes once more without it.
        """
        properties = retry_properties(delivery, headers, attempt=attempt, mark=self._mark)
        return await self._replace(delivery, self._layout.exchange, self._layout.retry_key(delay_s), properties)

    async def dead_letter(
        self, delivery: Delivery, reason: str, message: str, *, asset: str | None, instance: str | None
    ) -> bool:
        """Set a result aside for an operator, and ack it. False where the delivery was lost before that."""
        properties = dead_letter_properties(
            delivery,
            reason,
            message,
            asset=asset,
            instance=instance,
            headers={CONNECTION_HEADER: self._layout.name},
            now=datetime.now(UTC),
            mark=self._mark,
        )
        return await self._replace(
            delivery, self._layout.declared.dead_exchange, f"{CONNECT}.{self._layout.name}", properties
        )

    async def _replace(
        self, delivery: Delivery, exchange: str, routing_key: str, properties: pika.BasicProperties
    ) -> bool:
        """Publish what replaces a delivery, for as long as it is ours, and then ack it; whether that was done."""
        while not delivery.lost:
            if self._publisher is not None and self._publisher.is_open:
                try:
                    await self._publisher.publish(exchange, routing_key, delivery.body, properties)
                except Unpublishable:
                    raise
                except NotPublished as error:
                    _log.warning("not taken by RabbitMQ", connection=self._layout.name, error=str(error))
                else:
                    delivery.ack()
                    return True
            await asyncio.sleep(_REPUBLISH_PAUSE_S)
        return False

    async def _run_once(self) -> None:
        role = f"autotag-connect-{self._layout.name}"
        async with connected(self._settings, role) as consuming, connected(self._settings, f"{role}-out") as publishing:
            await (declare if self._settings.declare else find_missing)(consuming, self._layout.declared)
            self._publisher = await Publisher.open(publishing, self._settings.confirm_timeout_s)
            while True:
                self._changed.clear()
                if self._channel is None and not self._paused:
                    self._channel = await self._consume(consuming)
                    if self.fault is not None:
                        _log.info("results are taken", connection=self._layout.name)
                    self.fault = None
                await self._until_changed(consuming, publishing)

    async def _consume(self, connection: Connection) -> _ResultChannel:
        channel = _ResultChannel(await connection.channel(), self._check, self._on_result, self._changed.set)
        await channel.consume(self._layout.queue, self._prefetch)
        return channel

    async def _until_changed(self, consuming: Connection, publishing: Connection) -> None:
        """Wait for a pause or its end. Raises once a connection or a channel is lost."""
        assert self._publisher is not None  # noqa: S101 - opened just before
        changed = asyncio.create_task(self._changed.wait())
        ends: set[asyncio.Future[Any]] = {changed, consuming.lost, publishing.lost, self._publisher.closed}
        if self._channel is not None:
            ends.add(self._channel.closed)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        for connection in (consuming, publishing):
            if connection.lost.done():
                raise connection.lost.result()
        if self._channel is not None and self._channel.closed.done():
            raise self._channel.error()
        if self._publisher.closed.done():
            raise BrokerUnreachable("RabbitMQ has closed the channel for waiting results and dead letters")

    def _lose(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel, self._publisher = None, None


class _ResultChannel:
    """A channel that consumes, and what is in hand on it."""

    def __init__(
        self, channel: Channel, check: HeaderCheck, on_result: Callable[[Delivery], None], on_end: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._check = check
        self._on_result = on_result
        self._unsettled: set[int] = set()
        self._is_cancelled = False
        self._on_end = on_end
        channel.raw.add_on_cancel_callback(self._on_cancel)

    @property
    def is_open(self) -> bool:
        """Whether results can arrive and be settled."""
        return self._channel.is_open and not self._is_cancelled

    @property
    def in_hand(self) -> int:
        """How many results are not settled."""
        return len(self._unsettled)

    @property
    def closed(self) -> asyncio.Future[BaseException]:
        """Done once the channel is closed."""
        return self._channel.closed

    def error(self) -> AutotagError:
        """Why it was closed."""
        return self._channel.closed_error("consuming results")

    async def consume(self, queue: str, prefetch: int) -> None:
        """Start consuming. Raises what `Channel.wait` raises."""
        raw = self._channel.raw
        await self._channel.call(raw.basic_qos, prefetch_count=prefetch, action="setting the prefetch")
        await self._channel.call(
            raw.basic_consume,
            queue,
            self._receive,
            consumer_tag=f"connect.{connection_name()}",
            action=f"consuming from queue {queue}",
        )

    def close(self) -> None:
        """Give up the channel with all that is in hand."""
        self._unsettled.clear()
        self._channel.abandon()

    def ack(self, tag: int) -> None:
        """Acknowledge a result."""
        self._settle(tag, self._channel.raw.basic_ack)

    def requeue(self, tag: int) -> None:
        """Return a result to the queue."""
        self._settle(tag, self._channel.raw.basic_nack)

    def reject(self, tag: int) -> None:
        """Never done: the queue has no exchange for dead letters, these are published."""
        raise NotImplementedError

    def _settle(self, tag: int, method: Callable[[int], None]) -> None:
        if tag in self._unsettled:
            self._unsettled.discard(tag)
            with suppress(pika_errors.ChannelWrongStateError, pika_errors.ConnectionWrongStateError):
                method(tag)  # where the channel has just been closed, the result comes again

    def _receive(self, _channel: object, method: Any, properties: Any, body: bytes) -> None:
        if not self._channel.is_open:
            return
        tag = int(method.delivery_tag)
        if is_probe(properties, body):
            self._channel.raw.basic_ack(tag)
            return
        self._check.on_arrival(properties, body)
        self._unsettled.add(tag)
        delivery = Delivery(body, properties, Lane.LIVE, tag, bool(method.redelivered), time.monotonic(), self)
        try:
            self._on_result(delivery)
        except Exception:  # noqa: BLE001 - pika would close the connection, and all that is in hand would be requeued
            _log.exception("a result could not be taken in; it goes back to its queue", message_id=delivery.message_id)
            delivery.requeue()

    def _on_cancel(self, _frame: Any) -> None:
        """RabbitMQ has ended the consumer, as it does when the queue is deleted: declare it again."""
        self._is_cancelled = True
        self._channel.abandon()
        self._on_end()

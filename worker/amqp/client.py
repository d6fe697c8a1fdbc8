"""The other side of the broker, for `autotag publish`: publishes events as a DMS does, and listens to the results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from worker.amqp.connection import Channel, connected
from worker.amqp.declare import declare
from worker.amqp.publisher import Publisher, message_properties
from worker.amqp.topology import Lane, Topology
from worker.messages.events import CLOUDEVENTS_JSON
from worker.settings import AmqpSettings


class Visitor:
    """A connection of a publisher of events. Made by `visiting`."""

    def __init__(self, publisher: Publisher, layout: Topology, results: asyncio.Queue[bytes]) -> None:
        self._publisher = publisher
        self._layout = layout
        self._results = results

    async def publish_event(self, body: bytes, event_id: str, lane: Lane) -> None:
        """Publish one structured CloudEvent; returns when RabbitMQ has it safe. Raises NotPublished."""
        properties = message_properties(content_type=CLOUDEVENTS_JSON, headers={}, message_id=event_id, persistent=True)
        await self._publisher.publish(self._layout.images_exchange, lane.value, body, properties)

    async def next_result(self) -> bytes:
        """The body of the next result that the service publishes for anybody. Waits for it."""
        return await self._results.get()


@asynccontextmanager
async def visiting(settings: AmqpSettings, layout: Topology, *, listen: bool) -> AsyncIterator[Visitor]:
    """A visitor, listening before it publishes so that it misses no result.

    Raises Misconfigured or BrokerUnreachable.
    """
    async with connected(settings, "autotag-publish") as link:
        if settings.declare:
            await declare(link, layout)
        results: asyncio.Queue[bytes] = asyncio.Queue()
        if listen:
            await _listen(await link.channel(), layout, results)
        yield Visitor(await Publisher.open(link, settings.confirm_timeout_s), layout, results)


async def _listen(channel: Channel, layout: Topology, results: asyncio.Queue[bytes]) -> None:
    """Consume from a queue of our own that goes away with the connection: the DMS's queue is none of our business."""
    declared = await channel.call(
        channel.raw.queue_declare, queue="", exclusive=True, doing="declaring a queue to listen"
    )
    queue = declared.method.queue
    exchange = layout.results_exchange
    await channel.call(
        channel.raw.queue_bind, queue=queue, exchange=exchange, routing_key="#", doing=f"listening to {exchange}"
    )

    def take(_channel: object, _method: object, _properties: object, body: bytes) -> None:
        results.put_nowait(body)

    options: dict[str, Any] = {"queue": queue, "on_message_callback": take, "auto_ack": True}
    await channel.call(channel.raw.basic_consume, doing=f"consuming from {queue}", **options)

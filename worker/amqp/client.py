"""The publishing program's side of the broker, for `autotag publish`: publishes events, and listens to results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from worker.amqp.connection import Channel, Connection, connected
from worker.amqp.declare import as_it_is_there, declare, levels
from worker.amqp.publisher import Publisher, message_properties
from worker.amqp.topology import Lane, Topology
from worker.messages.events import CLOUDEVENTS_JSON
from worker.settings import AmqpSettings


class EventClient:
    """Publishes events and receives results over one connection. Opened by `open_event_client`."""

    def __init__(
        self, connection: Connection, publisher: Publisher, topology: Topology, results: asyncio.Queue[bytes]
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._topology = topology
        self._results = results

    async def publish_event(self, body: bytes, event_id: str, lane: Lane) -> None:
        """Publish one structured CloudEvent; returns when RabbitMQ has confirmed it. Raises NotPublished."""
        properties = message_properties(
            content_type=CLOUDEVENTS_JSON, headers={}, message_id=event_id, user=self._connection.broker.user
        )
        await self._publisher.publish(self._topology.images_exchange, lane.value, body, properties)

    async def queued(self, lane: Lane) -> int:
        """How many events of a lane wait in its queue; 0 where the queue may not be looked at."""
        queue = self._topology.lane_queue(lane)
        found = await levels(self._connection, [queue])
        return found[queue].messages if queue in found else 0

    async def next_result(self) -> bytes:
        """Wait for the next result, for the event of any publisher, and return its body."""
        return await self._results.get()


@asynccontextmanager
async def open_event_client(settings: AmqpSettings, topology: Topology, *, listen: bool) -> AsyncIterator[EventClient]:
    """An event client for the length of the block. With `listen`, it consumes results before it can publish, so that it
    misses none.

    Raises Misconfigured or BrokerUnreachable.
    """
    async with connected(settings, "autotag-publish") as connection:
        topology = await as_it_is_there(connection, topology)
        if settings.declare:
            await declare(connection, topology)
        results: asyncio.Queue[bytes] = asyncio.Queue()
        if listen:
            await _listen(await connection.channel(), topology, results)
        publisher = await Publisher.open(connection, settings.confirm_timeout_s)
        yield EventClient(connection, publisher, topology, results)


async def _listen(channel: Channel, topology: Topology, results: asyncio.Queue[bytes]) -> None:
    """Consume results from an exclusive queue that ends with the connection; the DMS's own queue is not touched."""
    declared = await channel.call(
        channel.raw.queue_declare, queue="", exclusive=True, action="declaring a queue to listen"
    )
    queue = declared.method.queue
    # Bound where results are taken from, it would take them from the DMS.
    exchange = topology.copies_exchange if topology.shares_results else topology.results_exchange
    await channel.call(
        channel.raw.queue_bind, queue=queue, exchange=exchange, routing_key="#", action=f"listening to {exchange}"
    )

    def on_message(_channel: object, _method: object, _properties: object, body: bytes) -> None:
        results.put_nowait(body)

    options: dict[str, Any] = {"queue": queue, "on_message_callback": on_message, "auto_ack": True}
    await channel.call(channel.raw.basic_consume, action=f"consuming from {queue}", **options)

"""The DMS of a chaos run: publishes every event until it is confirmed, and consumes results and dead letters.

It loses its connection as often as the workers do, and reconnects.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from worker.amqp.connection import Channel, Connection, connected
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.publisher import Publisher, message_properties
from worker.amqp.republish import REASON_HEADER, is_probe
from worker.amqp.topology import Topology
from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.workload import PlannedEvent
from worker.errors import AutotagError
from worker.settings import AmqpSettings

_ROLE = "autotag-chaos"
_BATCH = 50
_BACKLOG = 400
"""The number of published events that have not ended: enough to keep every worker busy."""

_RECONNECT_PAUSE_S = 0.3
_PREFETCH = 200


class ChaosClient:
    """`run` ends only when it is cancelled. Every result and dead letter is counted in `ledger`."""

    def __init__(
        self, settings: AmqpSettings, topology: Topology, planned: Sequence[PlannedEvent], ledger: Ledger
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._unconfirmed = {each.event_id: each for each in planned}
        self._ledger = ledger
        self.published = 0
        self.limit = 0
        """No more than so many events are published for now."""

    def waiting(self, event_ids: Iterable[str]) -> list[str]:
        """Those of the events that are published and have not ended."""
        return [each for each in event_ids if each not in self._unconfirmed and not self._ledger.has_ended(each)]

    async def run(self) -> None:
        """Publish and consume, over one connection after another."""
        while True:
            try:
                async with connected(self._settings, _ROLE) as connection:
                    await self._serve(connection)
            except AutotagError:
                # Broker gone, channel closed, not confirmed: again, on a new connection. A broker that is just being
                # killed or started also refuses in ways that look as if an operator had to act.
                await asyncio.sleep(_RECONNECT_PAUSE_S)

    async def _serve(self, connection: Connection) -> None:
        channel = await connection.channel()
        await channel.call(channel.raw.basic_qos, prefetch_count=_PREFETCH, action="setting the prefetch")
        await self._consume(channel, self._topology.results_queue, self._on_result)
        await self._consume(channel, self._topology.dead_letters_queue, self._on_dead_letter)
        publishing = asyncio.create_task(self._publish_all(connection))
        try:
            broken: set[asyncio.Future[Any]] = {connection.lost, channel.closed}
            await asyncio.wait({publishing, *broken}, return_when=asyncio.FIRST_COMPLETED)
            if publishing.done():
                publishing.result()
            await asyncio.wait(broken, return_when=asyncio.FIRST_COMPLETED)
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
        raise BrokerUnreachable("the connection of the chaos run's client was lost")

    async def _consume(self, channel: Channel, queue: str, count: Callable[[Any, bytes], None]) -> None:
        def on_message(raw: Any, method: Any, properties: Any, body: bytes) -> None:
            count(properties, body)
            raw.basic_ack(method.delivery_tag)

        await channel.call(channel.raw.basic_consume, queue, on_message, action=f"consuming from {queue}")

    def _on_result(self, properties: Any, body: bytes) -> None:
        self._ledger.result(body, properties.message_id, time.monotonic())

    def _on_dead_letter(self, properties: Any, body: bytes) -> None:
        if is_probe(properties, body):
            return  # a consumer that waits gets what expires at once, too
        reason = (properties.headers or {}).get(REASON_HEADER)
        self._ledger.dead_letter(properties.message_id, reason, time.monotonic())

    async def _publish_all(self, connection: Connection) -> None:
        publisher = await Publisher.open(connection, self._settings.confirm_timeout_s)
        while self._unconfirmed:
            room = min(self.limit - self.published, _BACKLOG - (self.published - self._ledger.ended), _BATCH)
            if room <= 0:
                await asyncio.sleep(0.05)
                continue
            batch = list(itertools.islice(self._unconfirmed.values(), room))
            await asyncio.gather(*(self._publish(publisher, each) for each in batch))

    async def _publish(self, publisher: Publisher, event: PlannedEvent) -> None:
        """Publish one event. An event that is not confirmed is published again later, under the same id."""
        made = event.message()
        properties = message_properties(content_type=made.content_type, headers=made.headers, message_id=event.event_id)
        await publisher.publish(self._topology.images_exchange, event.lane.value, made.body, properties)
        if self._unconfirmed.pop(event.event_id, None) is not None:
            self.published += 1

"""The DMS of a chaos run: publishes every event until it is confirmed, and takes results and dead letters.

It loses its connection as often as the workers do, and goes on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from worker.amqp.connection import Channel, Connection, connected
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.publisher import Publisher, message_properties
from worker.amqp.topology import Lane, Topology
from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.material import Planned
from worker.errors import TryLater
from worker.messages.events import CLOUDEVENTS_JSON
from worker.settings import AmqpSettings

_ROLE = "autotag-chaos"
_AT_ONCE = 50
_BACKLOG = 400
"""So many events are on their way at a time: enough that no worker ever waits for one."""

_PAUSE_S = 0.3
_PREFETCH = 200


class Client:
    """`run` ends when it is cancelled."""

    def __init__(self, settings: AmqpSettings, layout: Topology, planned: Sequence[Planned], ledger: Ledger) -> None:
        self._settings = settings
        self._layout = layout
        self._unconfirmed = {each.event_id: each for each in planned}
        self._ledger = ledger
        self.published = 0

    async def run(self) -> None:
        """Publish and take, over one connection after another."""
        while True:
            try:
                async with connected(self._settings, _ROLE) as link:
                    await self._serve(link)
            except TryLater:  # broker gone, channel closed, not confirmed: again, on a connection that works
                await asyncio.sleep(_PAUSE_S)

    async def _serve(self, link: Connection) -> None:
        channel = await link.channel()
        await channel.call(channel.raw.basic_qos, prefetch_count=_PREFETCH, doing="setting the prefetch")
        await self._take(channel, self._layout.results_queue, self._on_result)
        await self._take(channel, self._layout.dead_letters_queue, self._on_dead_letter)
        publishing = asyncio.create_task(self._publish_all(link))
        try:
            broken: set[asyncio.Future[Any]] = {link.lost, channel.closed}
            await asyncio.wait({publishing, *broken}, return_when=asyncio.FIRST_COMPLETED)
            if publishing.done():
                publishing.result()
            await asyncio.wait(broken, return_when=asyncio.FIRST_COMPLETED)
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
        raise BrokerUnreachable("the connection of the chaos run's client was lost")

    async def _take(self, channel: Channel, queue: str, on_message: Callable[[Any, Any, bytes], None]) -> None:
        def take(raw: Any, method: Any, properties: Any, body: bytes) -> None:
            on_message(method, properties, body)
            raw.basic_ack(method.delivery_tag)

        await channel.call(channel.raw.basic_consume, queue, take, doing=f"consuming from {queue}")

    def _on_result(self, _method: object, properties: Any, body: bytes) -> None:
        self._ledger.result(body, properties.message_id)

    def _on_dead_letter(self, _method: object, properties: Any, _body: bytes) -> None:
        self._ledger.dead_letter(properties.message_id)

    async def _publish_all(self, link: Connection) -> None:
        publisher = await Publisher.open(link, self._settings.confirm_timeout_s)
        while self._unconfirmed:
            if self.published - self._ledger.ended > _BACKLOG:
                await asyncio.sleep(0.05)
                continue
            batch = itertools.islice(self._unconfirmed.values(), _AT_ONCE)
            await asyncio.gather(*(self._publish(publisher, each) for each in batch))

    async def _publish(self, publisher: Publisher, event: Planned) -> None:
        """What is not confirmed is published again, under the same id."""
        properties = message_properties(content_type=CLOUDEVENTS_JSON, headers={}, message_id=event.event_id)
        await publisher.publish(self._layout.images_exchange, Lane.LIVE.value, event.body, properties)
        self._unconfirmed.pop(event.event_id, None)
        self.published += 1

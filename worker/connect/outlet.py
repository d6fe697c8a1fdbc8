"""Publishes events, over a connection to RabbitMQ that is kept up: what is not confirmed has not been taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from worker.amqp.connect_status import STATUS_KEY, status_topology
from worker.amqp.connection import Connection
from worker.amqp.declare import levels
from worker.amqp.errors import BrokerUnreachable, NotConfirmed
from worker.amqp.parameters import Address, addresses, connection_name
from worker.amqp.publisher import Publisher, message_properties
from worker.amqp.result_topology import connect_exchange
from worker.amqp.session import PublishingSession
from worker.amqp.topology import Lane, Topology
from worker.amqp.upkeep import Upkeep
from worker.connect.uploads import Upload
from worker.errors import Misconfigured
from worker.settings import AmqpSettings


class Outlet:
    """From `start` to `close`. `on_change` is called when it may have become able or unable to publish."""

    def __init__(self, settings: AmqpSettings, topology: Topology, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._topology = topology
        self._on_change = on_change
        self._publishers: dict[str, tuple[PublishingSession, Publisher]] = {}
        self._opening = asyncio.Lock()
        self._upkeep = Upkeep(
            "connect", self._open, addresses(settings), reconnect_max_s=settings.reconnect_max_s, on_change=on_change
        )

    def start(self) -> None:
        """Begin to connect."""
        self._upkeep.start()

    async def close(self) -> None:
        """Disconnect."""
        await self._upkeep.close()

    @property
    def why_not(self) -> str | None:
        """Why nothing can be published now, for people; None when it can."""
        session = self._upkeep.session
        if session is None:
            return str(self._upkeep.error or "not connected to RabbitMQ yet")
        if session.connection.blocked is not None:
            return f"RabbitMQ takes no messages: {session.connection.blocked}"
        return None

    async def publish(self, upload: Upload, lane: Lane, *, within_s: float) -> None:
        """Publish an event, and wait for RabbitMQ's confirm.

        Raises NotPublished, also when there is no confirm within that time: the event may have arrived all the same.
        """
        session = self._session_for(f"event {upload.event_id}")
        properties = message_properties(
            content_type=upload.content_type,
            headers={},
            message_id=upload.event_id,
            user=session.connection.broker.user,
        )
        try:
            async with asyncio.timeout(within_s):
                publisher = await self._publisher(session, lane.value, self._topology.of_lane(lane))
                await publisher.publish(self._topology.images_exchange, lane.value, upload.body, properties)
        except TimeoutError:
            raise NotConfirmed(
                f"RabbitMQ did not confirm event {upload.event_id} within {within_s:g} s; it may have arrived"
            ) from None
        except (BrokerUnreachable, Misconfigured) as error:
            raise NotConfirmed(f"event {upload.event_id} was not sent: {error}") from None

    async def announce(self, body: bytes, *, within_s: float) -> None:
        """Publish what the connector says of itself, for the status page.

        Raises NotPublished, BrokerUnreachable, Misconfigured, and TimeoutError.
        """
        session = self._session_for("the status")
        part = status_topology(self._topology)
        properties = message_properties(
            content_type="application/json", headers={}, message_id=STATUS_KEY, persistent=False
        )
        async with asyncio.timeout(within_s):
            publisher = await self._publisher(session, STATUS_KEY, part)
            await publisher.publish(connect_exchange(part), STATUS_KEY, body, properties)

    async def waiting(self, queues: Iterable[str]) -> dict[str, int]:
        """How many messages are ready in each queue; one that cannot be looked at is left out.

        Raises BrokerUnreachable.
        """
        session = self._upkeep.session
        if session is None:
            return {}
        return {name: level.messages for name, level in (await levels(session.connection, queues)).items()}

    def _session_for(self, what: str) -> PublishingSession:
        """The session, if anything can be published. Raises NotConfirmed."""
        session = self._upkeep.session
        why_not = self.why_not
        if session is None or why_not is not None:
            raise NotConfirmed(f"{what} was not sent: {why_not}")
        return session

    async def _publisher(self, session: PublishingSession, way: str, part: Topology) -> Publisher:
        """The way's open publisher; its part of the topology is declared when it is opened."""
        async with self._opening:
            known = self._publishers.get(way)
            if known is None or known[0] is not session or not known[1].is_open:
                publisher = await session.open_way(way, part)
                known = self._publishers[way] = (session, publisher)
        return known[1]

    async def _open(self, where: Address) -> PublishingSession:
        connection = await Connection.open(self._settings, connection_name("autotag-connect"), where)
        return PublishingSession(connection, self._settings, self._topology, self._on_change)

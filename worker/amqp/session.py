"""One connection and what is kept open on it: the declared topology, a publisher, a consumer for each lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import structlog

from worker.amqp.connection import Connection
from worker.amqp.consumer import Consumer
from worker.amqp.declare import declare, find_missing
from worker.amqp.delivery import Delivery
from worker.amqp.mark import HeaderCheck
from worker.amqp.parameters import connection_name
from worker.amqp.publisher import Publisher
from worker.amqp.topology import Lane, Topology
from worker.settings import AmqpSettings

_log = structlog.get_logger(__name__)


class Session:
    """Lives from connecting to the loss of the connection.

    `lanes` maps each lane to consume to its prefetch; `check` drops headers that only look like ours. While `is_paused`
    returns true, arriving deliveries are held. `on_change` is called when `reconcile` may have work to do.
    """

    def __init__(
        self,
        connection: Connection,
        settings: AmqpSettings,
        topology: Topology,
        lanes: Mapping[Lane, int],
        check: HeaderCheck,
        on_delivery: Callable[[Delivery], None],
        is_paused: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.publisher: Publisher | None = None
        self.consumer: Consumer | None = None
        self._settings = settings
        self._topology = topology
        self._prefetch = lanes
        self._check = check
        self._on_delivery = on_delivery
        self._is_paused = is_paused
        self._on_change = on_change
        self._topology_checked = False
        connection.on_change = on_change

    @classmethod
    async def open(
        cls,
        settings: AmqpSettings,
        topology: Topology,
        lanes: Mapping[Lane, int],
        check: HeaderCheck,
        on_delivery: Callable[[Delivery], None],
        is_paused: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> Self:
        """Connect. Raises Misconfigured or BrokerUnreachable."""
        connection = await Connection.open(settings, connection_name())
        return cls(connection, settings, topology, lanes, check, on_delivery, is_paused, on_change)

    @property
    def lanes(self) -> frozenset[Lane]:
        """The lanes being consumed."""
        return self.consumer.lanes if self.consumer else frozenset()

    async def reconcile(self, *, paused: bool) -> None:
        """Declare, open, consume and cancel until everything is as wanted; with `paused`, no lane is consumed.

        Raises Misconfigured or BrokerUnreachable; the session cannot be used after that.
        """
        if self.connection.lost.done():
            raise self.connection.lost.result()
        if not self._topology_checked:
            self._topology_checked = True  # first, so that a `_recheck_topology` during the await is not overwritten
            await (declare if self._settings.declare else find_missing)(self.connection, self._topology)
        if self.publisher is None or not self.publisher.is_open:
            self.publisher = await self._new_publisher(self.publisher)
        if self.consumer is None or not self.consumer.is_open:
            self.consumer = await self._new_consumer()
        wanted: frozenset[Lane] = frozenset() if paused else frozenset(self._prefetch)
        for lane in sorted(self.consumer.lanes - wanted):
            await self.consumer.cancel(lane)
        for lane in sorted(wanted - self.consumer.lanes):
            await self.consumer.consume(lane, self._topology.lane_queue(lane), self._prefetch[lane])
        if not self._is_paused():
            self.consumer.deliver_held()

    def on_unroutable(self) -> None:
        """A message was unroutable: declare the topology again, unless `declare = false` leaves that to an operator."""
        if self._settings.declare:
            self._recheck_topology()

    async def _new_publisher(self, lost: Publisher | None) -> Publisher:
        publisher = await Publisher.open(self.connection, self._settings.confirm_timeout_s)
        if lost is not None:
            publisher.maximum_bytes = lost.maximum_bytes
        publisher.closed.add_done_callback(lambda _: self._recheck_topology())
        return publisher

    async def _new_consumer(self) -> Consumer:
        channel = await self.connection.channel()
        consumer = Consumer(channel, self._check, self._on_delivery, self._on_cancelled, self._is_paused)
        consumer.closed.add_done_callback(lambda _: self._recheck_topology())
        return consumer

    def _on_cancelled(self, lane: Lane) -> None:
        _log.warning("RabbitMQ ended a consumer; was its queue deleted?", lane=lane.value)
        self._recheck_topology()

    def _recheck_topology(self) -> None:
        """Have the next `reconcile` check the topology again, and ask for one."""
        self._topology_checked = False
        self._on_change()

    async def close(self) -> None:
        """Disconnect; RabbitMQ requeues what is not settled."""
        await self.connection.close()

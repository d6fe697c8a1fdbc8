"""One connection and what is kept on it: everything declared, a publisher, a consumer for each lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import structlog

from worker.amqp.connection import Connection
from worker.amqp.consumer import Consumer
from worker.amqp.declare import declare, find_missing
from worker.amqp.delivery import Delivery
from worker.amqp.parameters import connection_name
from worker.amqp.publisher import Publisher
from worker.amqp.topology import Lane, Topology
from worker.settings import AmqpSettings

_log = structlog.get_logger(__name__)


class Session:
    """From connecting to the loss of the connection. `on_change` is called when `bring_in_line` may have work to do."""

    def __init__(
        self,
        link: Connection,
        settings: AmqpSettings,
        layout: Topology,
        lanes: Mapping[Lane, int],
        on_delivery: Callable[[Delivery], None],
        refusing: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self.link = link
        self.publisher: Publisher | None = None
        self.consumer: Consumer | None = None
        self._settings = settings
        self._layout = layout
        self._wanted = lanes
        self._on_delivery = on_delivery
        self._refusing = refusing
        self._on_change = on_change
        self._checked = False
        link.on_change = on_change

    @classmethod
    async def open(
        cls,
        settings: AmqpSettings,
        layout: Topology,
        lanes: Mapping[Lane, int],
        on_delivery: Callable[[Delivery], None],
        refusing: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> Self:
        """Connect. Raises Misconfigured or BrokerUnreachable."""
        link = await Connection.open(settings, connection_name())
        return cls(link, settings, layout, lanes, on_delivery, refusing, on_change)

    @property
    def lanes(self) -> frozenset[Lane]:
        """The lanes being consumed."""
        return self.consumer.lanes if self.consumer else frozenset()

    async def bring_in_line(self, *, paused: bool) -> None:
        """Open, declare, consume or cancel whatever is not as it should be.

        Raises Misconfigured or BrokerUnreachable; then the session is of no more use.
        """
        if self.link.lost.done():
            raise self.link.lost.result()
        if not self._checked:
            self._checked = True  # first, so that a doubt that arises meanwhile is not forgotten
            await (declare if self._settings.declare else find_missing)(self.link, self._layout)
        if self.publisher is None or not self.publisher.is_open:
            self.publisher = await self._new_publisher(self.publisher)
        if self.consumer is None or not self.consumer.is_open:
            self.consumer = await self._new_consumer()
        wanted: frozenset[Lane] = frozenset() if paused else frozenset(self._wanted)
        for lane in sorted(self.consumer.lanes - wanted):
            await self.consumer.cancel(lane)
        for lane in sorted(wanted - self.consumer.lanes):
            await self.consumer.consume(lane, self._layout.lane_queue(lane), self._wanted[lane])
        if not self._refusing():
            self.consumer.hand_on()

    def doubt(self) -> None:
        """A message found no queue: if declaring is ours to do, do it again. Otherwise only an operator can mend it."""
        if self._settings.declare:
            self._look_again()

    async def _new_publisher(self, lost: Publisher | None) -> Publisher:
        publisher = await Publisher.open(self.link, self._settings.confirm_timeout_s)
        if lost is not None:
            publisher.maximum_bytes = lost.maximum_bytes
        publisher.closed.add_done_callback(lambda _: self._look_again())
        return publisher

    async def _new_consumer(self) -> Consumer:
        consumer = Consumer(await self.link.channel(), self._on_delivery, self._on_cancelled, self._refusing)
        consumer.closed.add_done_callback(lambda _: self._look_again())
        return consumer

    def _on_cancelled(self, lane: Lane) -> None:
        _log.warning("RabbitMQ ended a consumer; was its queue deleted?", lane=lane.value)
        self._look_again()

    def _look_again(self) -> None:
        self._checked = False
        self._on_change()

    async def close(self) -> None:
        """Disconnect; the broker takes back what is not settled."""
        await self.link.close()

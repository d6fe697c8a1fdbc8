"""A Broker under test, with its deliveries and states recorded, and settings with short timeouts."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.polling import TIME_LIMIT_S
from worker.amqp.broker import Broker
from worker.amqp.connection import Connection, connected
from worker.amqp.delivery import Delivery
from worker.amqp.publisher import Publisher, message_properties
from worker.amqp.state import BrokerState
from worker.amqp.topology import Lane, Topology, topology
from worker.errors import AutotagError
from worker.settings import AmqpSettings


def settings_for(url: str, **changes: Any) -> AmqpSettings:
    """Settings with a random queue prefix, so that no two tests share queues."""
    prefix = f"test-{secrets.token_hex(6)}"
    return AmqpSettings.model_validate({"url": url, "queue_prefix": prefix, "reconnect_max_s": 1, **changes})


def topology_for(settings: AmqpSettings, delays_s: tuple[float, ...] = (0.2, 1)) -> Topology:
    return topology(settings.queue_prefix, delays_s)


@dataclass
class Serving:
    """A broker, its deliveries not yet taken by `next`, and every state and lost delivery it notified of."""

    settings: AmqpSettings
    topology: Topology
    broker: Broker = field(init=False)
    deliveries: asyncio.Queue[Delivery] = field(default_factory=asyncio.Queue)
    states: list[BrokerState] = field(default_factory=list)
    lost: list[Delivery] = field(default_factory=list)

    async def next(self, within_s: float = TIME_LIMIT_S) -> Delivery:
        return await asyncio.wait_for(self.deliveries.get(), within_s)

    async def depth_becomes(self, queue: str, depth: int, within_s: float = TIME_LIMIT_S) -> None:
        """Wait until a queue has `depth` messages ready: RabbitMQ requeues asynchronously."""
        deadline_s = time.monotonic() + within_s
        while (now := (await self.broker.depths())[queue]) != depth:
            assert time.monotonic() < deadline_s, f"{now} messages in {queue}, not {depth}"
            await asyncio.sleep(0.02)

    async def publish_event(self, message_id: str = "event", body: bytes = b"{}", lane: Lane = Lane.LIVE) -> None:
        await self.broker.publish(
            self.topology.images_exchange,
            lane.value,
            body,
            content_type="application/json",
            headers={"traceparent": "00-1-2-01"},
            message_id=message_id,
        )


@asynccontextmanager
async def serving(
    settings: AmqpSettings,
    *,
    lanes: dict[Lane, int] | None = None,
    topology: Topology | None = None,
    start: bool = True,
) -> AsyncIterator[Serving]:
    """A started broker. At the end it is closed, and its queues and exchanges are deleted."""
    it = Serving(settings, topology or topology_for(settings))
    it.broker = Broker(
        settings, it.topology, it.deliveries.put_nowait, it.states.append, on_lost=it.lost.append, lanes=lanes
    )
    try:
        if start:
            await asyncio.wait_for(it.broker.start(), TIME_LIMIT_S)
        yield it
    finally:
        await it.broker.close()
        with suppress(AutotagError):  # where the test broke RabbitMQ for good, there is nothing to delete
            await delete(settings, it.topology)


async def delete(settings: AmqpSettings, topology: Topology) -> None:
    """Delete the queues and exchanges of a topology."""
    async with open_operator(settings) as operator:
        for queue in topology.queues:
            await operator.call("queue_delete", queue=queue.name)
        for exchange in topology.exchanges:
            await operator.call("exchange_delete", exchange=exchange.name)


@asynccontextmanager
async def open_operator(settings: AmqpSettings) -> AsyncIterator[Operator]:
    """An operator's connection to the same RabbitMQ, for the length of the block."""
    async with connected(settings, "operator") as connection:
        yield Operator(connection, settings)


@dataclass
class Operator:
    """A second connection, which changes the queues as operators and other programs do."""

    connection: Connection
    settings: AmqpSettings

    async def call(self, method: str, **options: Any) -> Any:
        channel = await self.connection.channel()
        frame = await channel.call(getattr(channel.raw, method), action=method, **options)
        await channel.close()
        return frame

    async def publish(self, exchange: str, key: str, body: bytes = b"{}", **properties: Any) -> None:
        publisher = await Publisher.open(self.connection, self.settings.confirm_timeout_s)
        made = message_properties(content_type="application/json", headers={}, message_id="of-the-operator")
        for name, value in properties.items():
            setattr(made, name, value)
        await publisher.publish(exchange, key, body, made)

"""A Broker under test: what it was delivered, every state it told of, and settings short enough for a test."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from worker.amqp.broker import Broker
from worker.amqp.connection import Connection, connected
from worker.amqp.delivery import Delivery
from worker.amqp.publisher import Publisher, message_properties
from worker.amqp.state import BrokerState
from worker.amqp.topology import Lane, Topology, topology
from worker.errors import AutotagError
from worker.settings import AmqpSettings


def settings_for(url: str, **changes: Any) -> AmqpSettings:
    """Settings with a prefix of their own, so that no test meets another's queues."""
    prefix = f"test-{secrets.token_hex(6)}"
    return AmqpSettings.model_validate({"url": url, "queue_prefix": prefix, "reconnect_max_s": 1, **changes})


def layout_for(settings: AmqpSettings, delays_s: tuple[float, ...] = (0.2, 1)) -> Topology:
    return topology(settings.queue_prefix, delays_s)


async def until(condition: Callable[[], object], what: str, within_s: float = 20) -> None:
    """Wait until something holds; fail after `within_s`."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)


@dataclass
class Serving:
    """A broker and what came of it."""

    settings: AmqpSettings
    layout: Topology
    broker: Broker = field(init=False)
    deliveries: asyncio.Queue[Delivery] = field(default_factory=asyncio.Queue)
    states: list[BrokerState] = field(default_factory=list)

    async def next(self, within_s: float = 20) -> Delivery:
        return await asyncio.wait_for(self.deliveries.get(), within_s)

    async def depth_becomes(self, queue: str, depth: int, within_s: float = 10) -> None:
        """Wait until so many messages are ready in a queue: RabbitMQ takes back what is requeued in its own time."""
        deadline_s = time.monotonic() + within_s
        while (now := (await self.broker.depths())[queue]) != depth:
            assert time.monotonic() < deadline_s, f"{now} messages in {queue}, not {depth}"
            await asyncio.sleep(0.02)

    async def publish_event(self, message_id: str = "event", body: bytes = b"{}", lane: Lane = Lane.LIVE) -> None:
        await self.broker.publish(
            self.layout.images_exchange,
            lane.value,
            body,
            content_type="application/json",
            headers={"traceparent": "00-1-2-01"},
            message_id=message_id,
        )


@asynccontextmanager
async def serving(
    settings: AmqpSettings, *, lanes: dict[Lane, int] | None = None, layout: Topology | None = None, start: bool = True
) -> AsyncIterator[Serving]:
    """A started broker; closed, and its queues deleted, at the end."""
    it = Serving(settings, layout or layout_for(settings))
    it.broker = Broker(settings, it.layout, it.deliveries.put_nowait, it.states.append, lanes=lanes)
    try:
        if start:
            await asyncio.wait_for(it.broker.start(), 20)
        yield it
    finally:
        await it.broker.close()
        with suppress(AutotagError):  # where the test broke the broker for good, there is nothing to tidy
            await tidy(settings, it.layout)


async def tidy(settings: AmqpSettings, layout: Topology) -> None:
    """Remove what was declared."""
    async with operator(settings) as someone:
        for queue in layout.queues:
            await someone.call("queue_delete", queue=queue.name)
        for exchange in layout.exchanges:
            await someone.call("exchange_delete", exchange=exchange.name)


@asynccontextmanager
async def operator(settings: AmqpSettings) -> AsyncIterator[Operator]:
    """Somebody else on the same broker."""
    async with connected(settings, "operator") as link:
        yield Operator(link, settings)


@dataclass
class Operator:
    """Another connection, to do to the queues what operators and other programs do."""

    link: Connection
    settings: AmqpSettings

    async def call(self, method: str, **options: Any) -> Any:
        channel = await self.link.channel()
        frame = await channel.call(getattr(channel.raw, method), doing=method, **options)
        await channel.close()
        return frame

    async def publish(self, exchange: str, key: str, body: bytes = b"{}", **properties: Any) -> None:
        publisher = await Publisher.open(self.link, self.settings.confirm_timeout_s)
        made = message_properties(content_type="application/json", headers={}, message_id="of-the-operator")
        for name, value in properties.items():
            setattr(made, name, value)
        await publisher.publish(exchange, key, body, made)

"""Declares the topology on the broker, or checks that it exists. All differences are reported in one error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from worker.amqp.connection import Channel, Connection
from worker.amqp.topology import Topology
from worker.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class _Step:
    """A call of a method of pika's channel: its name and options, and a description for error messages."""

    method: str
    action: str
    options: dict[str, object] = field(default_factory=dict)


async def declare(connection: Connection, topology: Topology) -> None:
    """Declare exchanges, queues and bindings. Raises Misconfigured, which names each one that exists but differs."""
    declarations = [
        _Step(
            "exchange_declare",
            f"declaring exchange {exchange.name}",
            {"exchange": exchange.name, "exchange_type": exchange.type, "durable": True},
        )
        for exchange in topology.exchanges
    ]
    declarations += [
        _Step(
            "queue_declare",
            f"declaring queue {queue.name}",
            {"queue": queue.name, "durable": True, "arguments": dict(queue.arguments)},
        )
        for queue in topology.queues
    ]
    bindings = [
        _Step(
            "queue_bind",
            f"binding queue {binding.queue} to exchange {binding.exchange}",
            {"queue": binding.queue, "exchange": binding.exchange, "routing_key": binding.routing_key},
        )
        for binding in topology.bindings
    ]
    await _run(connection, declarations)
    await _run(connection, bindings)


async def find_missing(connection: Connection, topology: Topology) -> None:
    """Check that all exchanges and queues exist; declares none. Raises Misconfigured, which names each missing one."""
    exchanges = [
        _Step("exchange_declare", f"use of exchange {exchange.name}", {"exchange": exchange.name, "passive": True})
        for exchange in topology.exchanges
    ]
    queues = [
        _Step("queue_declare", f"use of queue {queue.name}", {"queue": queue.name, "passive": True})
        for queue in topology.queues
    ]
    await _run(connection, exchanges + queues)


@dataclass(frozen=True, slots=True)
class QueueLevel:
    """How many messages are ready in a queue, and how many consumers it has."""

    messages: int
    consumers: int


async def levels(connection: Connection, queues: Iterable[str]) -> dict[str, QueueLevel]:
    """The level of each queue; one that does not exist, or may not be looked at, is left out."""
    found: dict[str, QueueLevel] = {}
    async with _channels(connection) as scratch:
        for queue in queues:
            channel = await scratch.get()
            action = f"looking at queue {queue}"
            with suppress(Misconfigured):  # RabbitMQ closes the channel over the question
                frame = await channel.call(channel.raw.queue_declare, queue=queue, passive=True, action=action)
                found[queue] = QueueLevel(frame.method.message_count, frame.method.consumer_count)
    return found


async def exists(connection: Connection, queue: str) -> bool:
    """Whether there is such a queue."""
    return queue in await levels(connection, (queue,))


class _Scratch:
    """A channel for questions that may close it, and another one after it was closed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: Channel | None = None

    async def get(self) -> Channel:
        """An open channel. Raises what `Channel.wait` raises."""
        if self._channel is None or not self._channel.is_open:
            self._channel = await self._connection.channel()
        return self._channel

    def abandon(self) -> None:
        """Close it without waiting for the reply: whoever asks may have been cancelled, or never been answered."""
        if self._channel is not None:
            self._channel.abandon()


@asynccontextmanager
async def _channels(connection: Connection) -> AsyncIterator[_Scratch]:
    scratch = _Scratch(connection)
    try:
        yield scratch
    finally:
        scratch.abandon()


async def _run(connection: Connection, steps: Iterable[_Step]) -> None:
    """Run all steps, then raise one error that names every refused one. A refusal closes only the channel."""
    refusals: list[Misconfigured] = []
    async with _channels(connection) as scratch:
        for step in steps:
            channel = await scratch.get()
            try:
                await channel.call(getattr(channel.raw, step.method), action=step.action, **step.options)
            except Misconfigured as refusal:
                refusals.append(refusal)
    if refusals:
        raise Misconfigured("; ".join(map(str, refusals)), reason=refusals[0].reason)

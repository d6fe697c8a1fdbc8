"""Declares the topology on the broker, or checks that it exists. All differences are reported in one error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.amqp.connection import Connection
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


async def depths(connection: Connection, topology: Topology) -> dict[str, int]:
    """Number of messages ready in each queue; a queue that does not exist is left out."""
    found: dict[str, int] = {}
    channel = await connection.channel()
    for queue in topology.queues:
        action = f"looking at queue {queue.name}"
        try:
            frame = await channel.call(channel.raw.queue_declare, queue=queue.name, passive=True, action=action)
        except Misconfigured:  # it does not exist, and RabbitMQ has closed the channel over the question
            channel = await connection.channel()
        else:
            found[queue.name] = frame.method.message_count
    await channel.close()
    return found


async def _run(connection: Connection, steps: Iterable[_Step]) -> None:
    """Run all steps, then raise one error that names every refused one. A refusal closes only the channel."""
    refusals: list[Misconfigured] = []
    channel = await connection.channel()
    for step in steps:
        try:
            await channel.call(getattr(channel.raw, step.method), action=step.action, **step.options)
        except Misconfigured as refusal:
            refusals.append(refusal)
            channel = await connection.channel()
    await channel.close()
    if refusals:
        raise Misconfigured("; ".join(map(str, refusals)), reason=refusals[0].reason)

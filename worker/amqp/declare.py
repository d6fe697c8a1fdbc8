"""Makes the broker hold what `topology` says, or finds out in what it does not. Every difference is told at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.amqp.connection import Connection
from worker.amqp.topology import Topology
from worker.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class _Step:
    """A call of pika's channel: the method's name and options, and in words what it does."""

    method: str
    doing: str
    options: dict[str, object] = field(default_factory=dict)


async def declare(link: Connection, layout: Topology) -> None:
    """Declare exchanges, queues and bindings. Raises Misconfigured naming each one that is there but differs."""
    nodes = [
        _Step(
            "exchange_declare",
            f"declaring exchange {exchange.name}",
            {"exchange": exchange.name, "exchange_type": exchange.type, "durable": True},
        )
        for exchange in layout.exchanges
    ]
    nodes += [
        _Step(
            "queue_declare",
            f"declaring queue {queue.name}",
            {"queue": queue.name, "durable": True, "arguments": dict(queue.arguments)},
        )
        for queue in layout.queues
    ]
    edges = [
        _Step(
            "queue_bind",
            f"binding queue {binding.queue} to exchange {binding.exchange}",
            {"queue": binding.queue, "exchange": binding.exchange, "routing_key": binding.routing_key},
        )
        for binding in layout.bindings
    ]
    await _take(link, nodes)
    await _take(link, edges)


async def find_missing(link: Connection, layout: Topology) -> None:
    """Change nothing; raises Misconfigured naming each exchange and queue that is not there."""
    exchanges = [
        _Step("exchange_declare", f"use of exchange {exchange.name}", {"exchange": exchange.name, "passive": True})
        for exchange in layout.exchanges
    ]
    queues = [
        _Step("queue_declare", f"use of queue {queue.name}", {"queue": queue.name, "passive": True})
        for queue in layout.queues
    ]
    await _take(link, exchanges + queues)


async def depths(link: Connection, layout: Topology) -> dict[str, int]:
    """Messages ready in each queue; a queue that does not exist is left out."""
    found: dict[str, int] = {}
    channel = await link.channel()
    for queue in layout.queues:
        doing = f"looking at queue {queue.name}"
        try:
            frame = await channel.call(channel.raw.queue_declare, queue=queue.name, passive=True, doing=doing)
        except Misconfigured:  # it is not there, and asking closed the channel
            channel = await link.channel()
        else:
            found[queue.name] = frame.method.message_count
    await channel.close()
    return found


async def _take(link: Connection, steps: Iterable[_Step]) -> None:
    """Take all steps, then raise one error that names everything refused: a refusal costs no more than its channel."""
    refusals: list[Misconfigured] = []
    channel = await link.channel()
    for step in steps:
        try:
            await channel.call(getattr(channel.raw, step.method), doing=step.doing, **step.options)
        except Misconfigured as refusal:
            refusals.append(refusal)
            channel = await link.channel()
    await channel.close()
    if refusals:
        raise Misconfigured("; ".join(map(str, refusals)), reason=refusals[0].reason)

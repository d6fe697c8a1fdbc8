"""Declares the topology on the broker, or checks that it exists. All differences are reported in one error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from worker.amqp.connection import Channel, Connection
from worker.amqp.diagnosis import Difference, difference_in
from worker.amqp.topology import ALL_RESULTS, Topology
from worker.errors import Misconfigured

_MAXIMUM_DIFFERENCES = 10

HOW_TO_SHARE = (
    "once no worker of an older version runs any more, `autotag topology migrate` has it get only what no other takes"
)


@dataclass(frozen=True, slots=True)
class _Step:
    """A call of a method of pika's channel: its name and options, and a description for error messages."""

    method: str
    action: str
    options: dict[str, object] = field(default_factory=dict)


async def as_it_is_there(connection: Connection, topology: Topology) -> Topology:
    """The topology or, on a broker with a results queue of before it was only for what nobody else takes, as it was.

    The queue is looked for first, and declared last: two workers that begin on a new broker make no old one of it.
    """
    if not topology.shares_results or not await exists(connection, topology.results_queue):
        return topology
    step = _Step("exchange_declare", "looking at it", {"exchange": topology.unclaimed_exchange, "passive": True})
    try:
        await _run(connection, [step])
    except Misconfigured:
        return topology.with_all_results
    return topology


async def share_results(connection: Connection, topology: Topology) -> None:
    """Have the results queue get only what no other queue takes, on a broker where it gets all. Raises Misconfigured.

    No result is lost on the way: what a worker finds unroutable it holds, looks at the topology, and publishes again.
    """
    for part in (topology.of_copies, topology.of_results):
        await declare(connection, part)
    where = {"queue": topology.results_queue, "exchange": topology.results_exchange, "routing_key": ALL_RESULTS}
    await _run(connection, [_Step("queue_unbind", f"unbinding queue {topology.results_queue}", dict(where))])


async def declare(connection: Connection, topology: Topology) -> list[Difference]:
    """Declare exchanges, queues and bindings; returns in what queues differ that can be used all the same.

    So workers of two versions, or with other settings, can run side by side. Raises Misconfigured, which names each one
    that exists but differs otherwise.
    """
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
    differences = await _run(connection, declarations)
    await _run(connection, bindings)
    return differences


async def find_missing(connection: Connection, topology: Topology) -> list[Difference]:
    """Check that all exchanges and queues exist; declares none. Raises Misconfigured, which names each missing one."""
    exchanges = [
        _Step("exchange_declare", f"use of exchange {exchange.name}", {"exchange": exchange.name, "passive": True})
        for exchange in topology.exchanges
    ]
    queues = [
        _Step("queue_declare", f"use of queue {queue.name}", {"queue": queue.name, "passive": True})
        for queue in topology.queues
    ]
    return await _run(connection, exchanges + queues)


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
        """Close it without waiting for the reply: the one who asks may have been cancelled, or never been answered."""
        if self._channel is not None:
            self._channel.abandon()


@asynccontextmanager
async def _channels(connection: Connection) -> AsyncIterator[_Scratch]:
    scratch = _Scratch(connection)
    try:
        yield scratch
    finally:
        scratch.abandon()


async def _run(connection: Connection, steps: Iterable[_Step]) -> list[Difference]:
    """Run all steps, then raise one error that names every refused one. A refusal closes only the channel.

    A queue that differs harmlessly is declared with its own argument then, so that a further difference is found too.
    """
    refusals: list[Misconfigured] = []
    harmless: list[Difference] = []
    async with _channels(connection) as scratch:
        for step in steps:
            options = step.options
            for _ in range(_MAXIMUM_DIFFERENCES):
                channel = await scratch.get()
                try:
                    await channel.call(getattr(channel.raw, step.method), action=step.action, **options)
                except Misconfigured as refusal:
                    difference = difference_in(channel.refusal)
                    if difference is None or not difference.is_harmless:
                        refusals.append(refusal)
                        break
                    harmless.append(difference)
                    options = _as_it_is(options, difference)
                else:
                    break
    if refusals:
        raise Misconfigured("; ".join(map(str, refusals)), reason=refusals[0].reason)
    return harmless


def _as_it_is(options: dict[str, object], difference: Difference) -> dict[str, object]:
    """A queue's declaration with an argument as the existing queue has it."""
    given = options["arguments"]
    assert isinstance(given, dict)  # noqa: S101 - every declaration of a queue has them
    arguments: dict[str, object] = {name: value for name, value in given.items() if name != difference.argument}
    if difference.theirs is not None:
        arguments[difference.argument] = int(difference.theirs) if difference.theirs.isdigit() else difference.theirs
    return options | {"arguments": arguments}

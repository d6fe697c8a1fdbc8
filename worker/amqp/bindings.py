"""Finds out which bindings are missing, for `autotag check` where an administrator declares them.

AMQP has no question for that: only a message shows where it is routed. Ours leave nothing behind. Those to the lanes
and to the retry queues are dropped by the worker that gets them. Those to the results and the dead letters expire at
once, and are sent only while the queue is empty and has no consumer, which could get them.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.amqp.connection import Connection
from worker.amqp.declare import levels
from worker.amqp.errors import Unroutable
from worker.amqp.mark import HeaderMark
from worker.amqp.publisher import Publisher
from worker.amqp.republish import probe_properties
from worker.amqp.topology import Binding, Topology
from worker.settings import AmqpSettings

_RESULT_KEY = "default.tagged"


@dataclass(frozen=True, slots=True)
class FoundBindings:
    """`missing`: no queue gets what is published there. `unknown`: it was not looked at, as its queue is in use."""

    missing: tuple[Binding, ...]
    unknown: tuple[Binding, ...]


async def find_bindings(connection: Connection, settings: AmqpSettings, topology: Topology) -> FoundBindings:
    """Look at every binding. Raises NotPublished (a queue is full), Misconfigured or BrokerUnreachable."""
    mark = HeaderMark.of(settings)
    careful = {topology.results_queue, topology.dead_letters_queue}
    in_use = {
        queue
        for queue, level in (await levels(connection, careful)).items()
        if level.messages > 0 or level.consumers > 0
    }
    publisher = await Publisher.open(connection, settings.confirm_timeout_s)
    missing, unknown = [], []
    for binding in topology.bindings:
        if binding.queue in in_use:
            unknown.append(binding)
            continue
        key = _RESULT_KEY if binding.queue == topology.results_queue else binding.routing_key
        # What expires in a lane's queue goes to the dead letters.
        properties = probe_properties(mark, expires=binding.exchange != topology.images_exchange)
        try:
            await publisher.publish(binding.exchange, key, b"", properties)
        except Unroutable:
            missing.append(binding)
    return FoundBindings(tuple(missing), tuple(unknown))

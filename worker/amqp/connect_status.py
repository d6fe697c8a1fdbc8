"""What `autotag connect` says of itself: the newest message of a queue, which the service reads for its status page.

    {p}.connect  direct  ── :status ──► {p}.connect-status      one message; each one takes the place of the last

The connector publishes it every few seconds. It is gone after a minute, so that nobody takes an old one for new.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from pika import spec

from worker.amqp.connection import Connection, set_result
from worker.amqp.result_topology import connect_exchange
from worker.amqp.topology import Binding, Exchange, Queue, Topology

STATUS_KEY: Final = ":status"
"""No connection can be named so."""
_KEPT_MS: Final = 60_000


def status_topology(names: Topology) -> Topology:
    """The exchange, the queue and its binding."""
    exchange, queue = connect_exchange(names), status_queue(names)
    arguments: dict[str, str | int] = {"x-queue-type": "classic", "x-max-length": 1, "x-message-ttl": _KEPT_MS}
    return replace(
        names,
        exchanges=(Exchange(exchange, "direct"),),
        queues=(Queue(queue, arguments),),
        bindings=(Binding(exchange, queue, STATUS_KEY),),
    )


def status_queue(names: Topology) -> str:
    """The queue that holds it."""
    return f"{names.prefix}.connect-status"


async def read_status(connection: Connection, names: Topology) -> bytes | None:
    """The message, which stays where it is; None without one, and while somebody else reads it.

    Raises Misconfigured where there is no such queue or it may not be read, and BrokerUnreachable.
    """
    action = f"reading from queue {status_queue(names)}"
    channel = await connection.channel()
    try:
        reply: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def on_message(_channel: object, _method: object, _properties: object, body: bytes) -> None:
            set_result(reply, body)

        def on_empty(_frame: Any) -> None:
            set_result(reply, None)

        channel.raw.add_callback(on_empty, [spec.Basic.GetEmpty])
        channel.raw.basic_get(status_queue(names), on_message)
        found: bytes | None = await channel.wait(reply, action)
        return found
    finally:
        channel.abandon()  # RabbitMQ then has the message again, as it is not acked

"""The broker as the benchmark uses it: queues filled at once, looked at from outside, and emptied afterwards.

Nobody takes results while something is measured. They carry the moment at which they were written, so they can be
read when the run is over, and the measuring costs nothing while it lasts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import pika

_LOOK_EVERY_S = 0.25
_PREFETCH = 500


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be published."""

    exchange: str
    routing_key: str
    body: bytes
    properties: pika.BasicProperties


class Queues:
    """A connection of the benchmark's own."""

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0  # it is left alone for minutes
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        self.port = urlsplit(url).port or 5672
        self.local = urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def declare(self, queue: str, arguments: dict[str, Any] | None = None) -> None:
        """Make a durable queue."""
        self._channel.queue_declare(queue, durable=True, arguments=arguments)

    def delete(self, queues: Iterable[str]) -> None:
        """Remove queues, with what is in them."""
        for queue in queues:
            self._channel.queue_delete(queue)

    def publish(self, messages: Iterable[Outgoing]) -> None:
        """Send messages, without waiting for confirms: what is lost would be missed at the end."""
        for message in messages:
            self._channel.basic_publish(message.exchange, message.routing_key, message.body, message.properties)

    def purge(self, queue: str) -> None:
        """Throw away what is in a queue."""
        self._channel.queue_purge(queue)

    def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        return int(self._channel.queue_declare(queue, passive=True).method.message_count)

    def wait_for(self, queue: str, count: int, within_s: float) -> None:
        """Wait until a queue holds `count` messages. Raises TimeoutError, with how many there are."""
        deadline_s = time.monotonic() + within_s
        while (found := self.depth(queue)) < count:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{queue} holds {found} of {count} results after {within_s:g} s")
            time.sleep(_LOOK_EVERY_S)

    def drain(self, queue: str, count: int, within_s: float = 60.0) -> list[bytes]:
        """Take `count` messages from a queue. Raises TimeoutError when they do not come."""
        bodies: list[bytes] = []
        if count == 0:
            return bodies
        channel = self._connection.channel()
        channel.basic_qos(prefetch_count=_PREFETCH)
        deadline_s = time.monotonic() + within_s
        for method, _, body in channel.consume(queue, inactivity_timeout=1.0):
            if method is not None:
                bodies.append(body)
                if len(bodies) % (_PREFETCH // 2) == 0 or len(bodies) == count:
                    channel.basic_ack(method.delivery_tag, multiple=True)
            if len(bodies) == count or time.monotonic() > deadline_s:
                break
        channel.close()
        if len(bodies) < count:
            raise TimeoutError(f"{queue} gave {len(bodies)} of {count} results within {within_s:g} s")
        return bodies

"""Sends a copy of each result to those who only look on, over a channel of its own.

Nobody waits for a copy, and none stops a result: where the right to publish copies is missing, or their exchange was
deleted, RabbitMQ closes the channel over the next one, and that is not the results' own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import pika
import structlog

from worker.amqp.publisher import Publisher
from worker.errors import AutotagError

_log = structlog.get_logger(__name__)

_AGAIN_AFTER_S = 300.0


class Copies:
    """Copies to one exchange. `open_publisher` opens what they are sent with; it may raise AutotagError.

    After that, or once its channel was closed, copies are left out for five minutes, and tried again then.
    """

    def __init__(self, exchange: str, open_publisher: Callable[[], Awaitable[Publisher]]) -> None:
        self._exchange = exchange
        self._open_publisher = open_publisher
        self._publisher: Publisher | None = None
        self._opening: asyncio.Task[None] | None = None
        self._opened_at_s = -math.inf

    async def open(self) -> None:
        """Open the channel, if it was not for the last five minutes. Raises nothing: then there are no copies."""
        if self._publisher is not None and self._publisher.is_open:
            return
        if time.monotonic() - self._opened_at_s < _AGAIN_AFTER_S:
            return
        self._opened_at_s = time.monotonic()
        try:
            self._publisher = await self._open_publisher()
        except AutotagError as error:
            self._publisher = None
            _log.warning("no copies of results are published", reason=error.reason, error=str(error))

    def send(self, routing_key: str, body: bytes, properties: pika.BasicProperties) -> None:
        """Send a copy, if that is possible now; where it is not, it is missed."""
        if self._publisher is not None and self._publisher.is_open:
            self._publisher.send_unconfirmed(self._exchange, routing_key, body, properties)
        elif self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self.open(), name="amqp copies")

    async def close(self) -> None:
        """End what is still being opened."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})

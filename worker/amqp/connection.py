"""One open connection to RabbitMQ and its channels, made awaitable. pika's callbacks end here.

A link and its channels live once: when one is lost, whoever needs it opens another. What is waiting on a lost one gets
an error at once, and no wait is longer than `connection_timeout_s`, except while RabbitMQ has blocked the connection:
then it reads nothing, so there can be no answer, and pika gives the connection up after `blocked_timeout_s`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from pika.exceptions import ConnectionOpenAborted

from worker.amqp.diagnosis import why_lost, why_not_connected, why_refused
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.parameters import Address, address, connection_name, connection_parameters
from worker.amqp.pika_fixes import PikaConnection
from worker.errors import AutotagError
from worker.settings import AmqpSettings

_CLOSE_TIMEOUT_S = 3.0


class Connection:
    """An open connection. `lost` is done when it no longer is one, with why; `blocked` says why it is blocked."""

    def __init__(self, connection: Any, broker: Address, timeout_s: float) -> None:
        self.broker = broker
        self.timeout_s = timeout_s
        self.blocked: str | None = None
        self._unblocked_at_s = 0.0
        self.lost: asyncio.Future[AutotagError] = asyncio.get_running_loop().create_future()
        self.on_change: Callable[[], None] = lambda: None
        """Called when `lost` or `blocked` has changed."""
        self._connection = connection
        connection.add_on_close_callback(self._on_lost)
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    @classmethod
    async def open(cls, settings: AmqpSettings, name: str) -> Self:
        """Connect once. Raises Misconfigured or BrokerUnreachable; each says what to do."""
        broker = address(settings)
        failed: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        connection = PikaConnection(
            connection_parameters(settings, name),
            on_open_callback=lambda _: answer(failed, None),
            on_open_error_callback=lambda _, error: answer(failed, error),
        )
        try:
            error = await failed
        except asyncio.CancelledError:
            cut(connection)
            raise
        if error is not None:
            raise why_not_connected(error, broker) from error
        return cls(connection, broker, settings.connection_timeout_s)

    async def channel(self) -> Channel:
        """Open a channel."""
        if self.lost.done():
            raise self.lost.result()
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel = Channel(self, self._connection.channel(on_open_callback=lambda raw: answer(opened, raw)))
        await channel.wait(opened, "opening a channel")
        return channel

    async def close(self) -> None:
        """Close politely; a broker that does not answer soon is left without a goodbye. Closing twice is harmless."""
        try:
            if self._connection.is_open and self.blocked is None:  # a broker that has blocked us hears no goodbye
                self._connection.close()
                await asyncio.wait({self.lost}, timeout=_CLOSE_TIMEOUT_S)
        finally:
            if not self.lost.done():
                cut(self._connection)
        await asyncio.wait({self.lost}, timeout=_CLOSE_TIMEOUT_S)

    def silent_for_s(self, since_s: float) -> float:
        """How long something sent at `since_s` has gone unanswered; no time passes while the broker reads nothing."""
        return 0.0 if self.blocked is not None else time.monotonic() - max(since_s, self._unblocked_at_s)

    def _on_lost(self, _connection: object, error: BaseException) -> None:
        self.blocked = None
        if not self.lost.done():
            self.lost.set_result(why_lost(error, self.broker))
        self.on_change()

    def _on_blocked(self, _connection: object, frame: Any) -> None:
        self.blocked = str(frame.method.reason)
        self.on_change()

    def _on_unblocked(self, *_: object) -> None:
        self.blocked = None
        self._unblocked_at_s = time.monotonic()
        self.on_change()


class Channel:
    """An open channel. `closed` is done when it no longer is one, with the reason."""

    def __init__(self, link: Connection, raw: Any) -> None:
        self.link = link
        self.raw = raw
        self.closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        raw.add_on_close_callback(self._on_closed)

    @property
    def is_open(self) -> bool:
        """Whether something can be sent on it."""
        return bool(self.raw.is_open)

    async def call(self, method: Callable[..., object], *args: object, doing: str, **options: object) -> Any:
        """Call a method of pika's channel that is answered by the broker, and wait for the answer.

        Raises what `why_refused` makes of a closed channel; `doing` says in words what was tried.
        """
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.is_open:
            raise self.refusal(doing)
        method(*args, **options, callback=lambda frame: answer(answered, frame))
        return await self.wait(answered, doing)

    async def wait(self, answered: asyncio.Future[Any], doing: str) -> Any:
        """Wait for an answer, or the end of the channel, or too long."""
        asked_at_s = time.monotonic()
        while (left_s := self.link.timeout_s - self.link.silent_for_s(asked_at_s)) > 0:
            await asyncio.wait({answered, self.closed}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                return answered.result()
            if self.closed.done():
                raise self.refusal(doing)
        raise BrokerUnreachable(
            f"RabbitMQ at {self.link.broker} did not answer within {self.link.timeout_s:g} s while {doing}",
            reason="broker_silent",
        )

    def refusal(self, doing: str) -> AutotagError:
        """Why the closed channel was closed."""
        if self.link.lost.done():
            return self.link.lost.result()
        if not self.closed.done():
            return BrokerUnreachable("the channel is being closed", reason="channel_closed")
        return why_refused(self.closed.result(), self.link.broker, doing)

    async def close(self) -> None:
        """Close the channel; what was delivered on it and is not settled goes back to its queue."""
        if self.is_open:
            self.raw.close()
            await asyncio.wait({self.closed}, timeout=self.link.timeout_s)

    def _on_closed(self, _channel: object, error: BaseException) -> None:
        if not self.closed.done():
            self.closed.set_result(error)


@asynccontextmanager
async def connected(settings: AmqpSettings, role: str) -> AsyncIterator[Connection]:
    """A short-lived connection for one command. Raises Misconfigured or BrokerUnreachable when there is none."""
    link = await Connection.open(settings, connection_name(role))
    try:
        yield link
    finally:
        await link.close()


def answer(future: asyncio.Future[Any], value: object) -> None:
    """Set a future's result, unless nobody waits for it any more."""
    if not future.done():
        future.set_result(value)


def cut(connection: Any) -> None:
    """End a connection without the broker's consent, which pika has no public way to do."""
    if not connection.is_closed:
        connection._terminate_stream(ConnectionOpenAborted("given up"))

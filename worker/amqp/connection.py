"""One open connection to RabbitMQ and its channels, made awaitable. pika's callbacks end here.

A connection and its channels are never reopened: when one is lost, its owner opens another. A call that is pending on a
lost connection or channel raises at once, and no wait is longer than `connection_timeout_s`. The exception is a
connection that RabbitMQ has blocked: RabbitMQ then reads nothing, so there can be no reply, and pika gives the
connection up after `blocked_timeout_s`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from pika.exceptions import ConnectionOpenAborted

from worker.amqp.diagnosis import connect_error, connection_lost_error, refusal_error
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.parameters import Address, addresses, connection_name, connection_parameters
from worker.amqp.pika_fixes import PikaConnection
from worker.amqp.versions import BrokerVersion
from worker.errors import AutotagError
from worker.settings import AmqpSettings

_CLOSE_TIMEOUT_S = 3.0


class Connection:
    """An open connection. `lost` is done once it is closed, with the reason; `blocked` is RabbitMQ's reason or None."""

    def __init__(self, raw: Any, broker: Address, timeout_s: float) -> None:
        self.broker = broker
        self.version = BrokerVersion.of(raw.server_properties)
        self.timeout_s = timeout_s
        self.blocked: str | None = None
        self._unblocked_at_s = 0.0
        self.lost: asyncio.Future[AutotagError] = asyncio.get_running_loop().create_future()
        self.on_change: Callable[[], None] = lambda: None
        """Called when `lost` or `blocked` has changed."""
        self._reading_paused = False
        self._resumed_at_s = 0.0
        self._raw = raw
        raw.add_on_close_callback(self._on_lost)
        raw.add_on_connection_blocked_callback(self._on_blocked)
        raw.add_on_connection_unblocked_callback(self._on_unblocked)

    @classmethod
    async def open(cls, settings: AmqpSettings, name: str, broker: Address) -> Self:
        """Connect once. Raises Misconfigured or BrokerUnreachable, whose message says what to do."""
        opened: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        raw = PikaConnection(
            connection_parameters(settings, name, broker),
            on_open_callback=lambda _: set_result(opened, None),
            on_open_error_callback=lambda _, error: set_result(opened, error),
        )
        try:
            error = await opened
        except asyncio.CancelledError:
            abort(raw)
            raise
        if error is not None:
            raise connect_error(error, broker) from error
        return cls(raw, broker, settings.connection_timeout_s)

    async def channel(self) -> Channel:
        """Open a channel. Raises what `Channel.wait` raises."""
        if self.lost.done():
            raise self.lost.result()
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel = Channel(self, self._raw.channel(on_open_callback=lambda raw: set_result(opened, raw)))
        try:
            await channel.wait(opened, "opening a channel")
        except BaseException:  # cancelled, or not answered in time: nobody else would close it
            opened.add_done_callback(lambda _: channel.abandon())
            raise
        return channel

    async def close(self) -> None:
        """Close in order; abort if the broker does not reply within 3 s. Closing twice is harmless."""
        self.resume_reading()
        try:
            if self._raw.is_open and self.blocked is None:  # a broker that has blocked us does not read the request
                self._raw.close()
                await asyncio.wait({self.lost}, timeout=_CLOSE_TIMEOUT_S)
        finally:
            if not self.lost.done():
                abort(self._raw)
        await asyncio.wait({self.lost}, timeout=_CLOSE_TIMEOUT_S)

    def silent_for_s(self, since_s: float) -> float:
        """How long something sent at `since_s` (monotonic) is unanswered. Time while RabbitMQ blocks us is not counted,
        since it reads nothing then; nor is time while we read nothing.
        """
        if self.blocked is not None or self._reading_paused:
            return 0.0
        return time.monotonic() - max(since_s, self._unblocked_at_s, self._resumed_at_s)

    @property
    def coming_bytes(self) -> int:
        """The sizes of the messages that have begun to arrive, and of which there is more to come; one a channel."""
        return int(self._raw.coming_bytes)

    def watch_coming(self, on_coming: Callable[[], None]) -> None:
        """Call this whenever a message has begun to arrive."""
        self._raw.on_coming = on_coming

    def pause_reading(self) -> None:
        """Read nothing more, so that what RabbitMQ sends waits on its side, until `resume_reading`.

        For seconds only: RabbitMQ closes a connection on which it could send nothing for 30 s, and so does pika where
        it has received nothing for `heartbeat_s` + 5 s.
        """
        if not self._reading_paused and not self.lost.done():
            self._reading_paused = True
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._reading_paused:
            self._reading_paused = False
            self._resumed_at_s = time.monotonic()
            self._raw.resume_reading()

    def _on_lost(self, _connection: object, error: BaseException) -> None:
        self.blocked = None
        if not self.lost.done():
            self.lost.set_result(connection_lost_error(error, self.broker))
        self.on_change()

    def _on_blocked(self, _connection: object, frame: Any) -> None:
        self.blocked = str(frame.method.reason)
        self.on_change()

    def _on_unblocked(self, *_: object) -> None:
        self.blocked = None
        self._unblocked_at_s = time.monotonic()
        self.on_change()


class Channel:
    """An open channel. `closed` is done once it is closed, with the reason; `raw` is pika's channel."""

    def __init__(self, connection: Connection, raw: Any) -> None:
        self.connection = connection
        self.raw = raw
        self.closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        raw.add_on_close_callback(self._on_closed)

    @property
    def is_open(self) -> bool:
        """Whether it can still send."""
        return bool(self.raw.is_open)

    @property
    def refusal(self) -> str:
        """RabbitMQ's text, if it has closed the channel."""
        return str(getattr(self.closed.result(), "reply_text", "")) if self.closed.done() else ""

    async def call(self, method: Callable[..., object], *args: object, action: str, **options: object) -> Any:
        """Call a method of `raw` to which the broker replies, and return the reply's frame.

        `action` describes the call for error messages ("declaring queue q"). Raises what `wait` raises.
        """
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.is_open:
            raise self.closed_error(action)
        method(*args, **options, callback=lambda frame: set_result(reply, frame))
        return await self.wait(reply, action)

    async def wait(self, reply: asyncio.Future[Any], action: str) -> Any:
        """Wait for a reply and return it.

        Raises `closed_error` when the channel is closed first, and BrokerUnreachable (`broker_silent`) after
        `connection_timeout_s` without a reply.
        """
        sent_at_s = time.monotonic()
        connection = self.connection
        while (left_s := connection.timeout_s - connection.silent_for_s(sent_at_s)) > 0:
            await asyncio.wait({reply, self.closed}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if reply.done():
                return reply.result()
            if self.closed.done():
                raise self.closed_error(action)
        raise BrokerUnreachable(
            f"RabbitMQ at {connection.broker} did not answer within {connection.timeout_s:g} s while {action}",
            reason="broker_silent",
        )

    def closed_error(self, action: str) -> AutotagError:
        """The error to raise for an action on this closed channel: why the connection was lost, or the channel closed.

        Misconfigured where RabbitMQ refused the action permanently, else BrokerUnreachable.
        """
        if self.connection.lost.done():
            return self.connection.lost.result()
        if not self.closed.done():
            return BrokerUnreachable("the channel is being closed", reason="channel_closed")
        return refusal_error(self.closed.result(), self.connection.broker, action)

    async def close(self) -> None:
        """Close the channel; RabbitMQ requeues what was delivered on it and is not settled."""
        if self.is_open:
            self.raw.close()
            await asyncio.wait({self.closed}, timeout=self.connection.timeout_s)

    def abandon(self) -> None:
        """Close the channel without waiting until RabbitMQ has done so."""
        if self.is_open:
            self.raw.close()

    def _on_closed(self, _channel: object, error: BaseException) -> None:
        if not self.closed.done():
            self.closed.set_result(error)


@asynccontextmanager
async def connected(settings: AmqpSettings, role: str) -> AsyncIterator[Connection]:
    """A connection for the length of the block. Raises Misconfigured or BrokerUnreachable when it cannot be opened."""
    connection = await _open_first(settings, connection_name(role))
    try:
        yield connection
    finally:
        await connection.close()


async def _open_first(settings: AmqpSettings, name: str) -> Connection:
    """Connect to the first of the addresses that can be connected to. Raises the last one's error."""
    *others, last = addresses(settings)
    for broker in others:
        with suppress(AutotagError):
            return await Connection.open(settings, name, broker)
    return await Connection.open(settings, name, last)


def set_result(future: asyncio.Future[Any], value: object) -> None:
    """Set a future's result, unless it is done or was cancelled."""
    if not future.done():
        future.set_result(value)


def abort(raw: Any) -> None:
    """End pika's connection without the closing handshake, for which pika has no public method."""
    if not raw.is_closed:
        raw._terminate_stream(ConnectionOpenAborted("given up"))

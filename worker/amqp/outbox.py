"""Holds what is to be published until RabbitMQ has confirmed it, however long that takes.

Results, retries and dead letters each have their way out: an exchange, and a channel of its own. A way is free while
the last message that took it was confirmed. When one is refused, unroutable or not confirmed, the way is shut: its
messages are held, and one of them, the probe, is published again after a pause that grows. Once that is confirmed, the
others follow. While a way is shut, or RabbitMQ blocks the connection, there is a pause: no event is taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

import pika
import structlog

from worker.amqp.errors import BrokerUnreachable, NotPublished, Unpublishable, Unroutable
from worker.amqp.publisher import Publisher
from worker.amqp.session import PublishingSession
from worker.amqp.state import BrokerPause
from worker.amqp.topology import Lane, Topology
from worker.errors import AutotagError

_log = structlog.get_logger(__name__)

BLOCKED = "broker_blocked"
"""The pause while RabbitMQ reads nothing from us, or may still do so after a new connection."""

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
"""Between two probes of a way that is shut."""

_RECENTLY_S = 600.0
"""A message that was confirmed longer ago than this proves nothing about a way."""

_JUST_NOW_S = 60.0
"""A message that was confirmed longer ago does not show that a binding which was there is missing for one key alone."""

_MAXIMUM_KEYS = 4096
"""Of how many routing keys the last outcome is remembered."""


class WayOut(StrEnum):
    """What is published."""

    RESULTS = "results"
    RETRIES = "retries"
    DEAD_LETTERS = "dead_letters"

    @property
    def pause(self) -> str:
        """The reason of the pause while it is shut."""
        return _PAUSES[self]


_PAUSES: dict[WayOut, str] = {
    WayOut.RESULTS: "results_cannot_be_published",
    WayOut.RETRIES: "retries_cannot_be_published",
    WayOut.DEAD_LETTERS: "dead_letters_cannot_be_published",
}

_WHAT_TO_DO: dict[WayOut, str] = {
    WayOut.RESULTS: "have the results queue consumed, raise its limit, bind it again, or restore the permission",
    WayOut.RETRIES: "look at the retry queues, their bindings and the permissions: `autotag check` names what lacks",
    WayOut.DEAD_LETTERS: "look at the queue of dead letters: its limit, its binding, the permissions",
}


@dataclass(slots=True, eq=False)
class Message:
    """A message to publish. `publishable_late`: also after its event was given up, its id shows a repetition."""

    routing_key: str
    body: bytes
    properties: pika.BasicProperties
    publishable_late: bool = False
    released: asyncio.Future[bool] | None = None
    """While it is held. True: it was confirmed as the probe. False: the way is free, and it can be published."""

    @property
    def can_be_probe(self) -> bool:
        """While it is held: whether its caller waits for it, or has just been called off and is about to leave it."""
        if self.released is None:
            return False
        return not self.released.done() or (self.released.cancelled() and self.publishable_late)

    def release(self, *, confirmed: bool) -> None:
        """End its wait."""
        if self.released is not None and not self.released.done():
            self.released.set_result(confirmed)

    def fail(self, error: NotPublished) -> None:
        """End its wait with an error for its caller."""
        if self.released is not None and not self.released.done():
            self.released.set_exception(error)


@dataclass(slots=True)
class _Shut:
    """A way that is not free: since when (monotonic), why, and whether the fault is the way's own."""

    since_s: float
    error: AutotagError
    own_fault: bool


@dataclass(slots=True, eq=False)
class _Way:
    """One way out. `publisher` is the open one while the way is free; None while it is shut or not connected."""

    name: WayOut
    exchange: str
    part: Topology
    publisher: Publisher | None = None
    shut: _Shut | None = None
    held: dict[Message, None] = field(default_factory=dict)
    kept: Message | None = None
    """What a caller that was cancelled leaves: the probe while no message is held."""
    confirmed_at_s: dict[str, float] = field(default_factory=dict)
    """By routing key: when a message was last confirmed. A key whose last message was unroutable is not in it."""
    last_key: str | None = None
    """The routing key over which the way was shut."""
    probing: asyncio.Task[None] | None = None
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a probe need not wait any longer."""

    def note_confirm(self, key: str) -> None:
        if len(self.confirmed_at_s) >= _MAXIMUM_KEYS:
            self.confirmed_at_s.clear()
        self.confirmed_at_s[key] = time.monotonic()

    def is_keys_own_fault(self, key: str) -> bool:
        """Whether only this routing key, which has just been unroutable, has no queue, since another one recently had.

        Where this key had one itself, the other was confirmed after it, and just now: a way that is broken as a whole
        is found by a few keys, one after the other. A retry can take another key, so there it does not matter that this
        one was confirmed before.
        """
        if self.name is WayOut.DEAD_LETTERS:  # they go everywhere, by any key
            return False
        now_s, own_s = time.monotonic(), self.confirmed_at_s.pop(key, None)
        since_s = now_s - _RECENTLY_S
        if own_s is not None and self.name is WayOut.RESULTS:
            since_s = max(own_s, now_s - _JUST_NOW_S)
        return any(at_s > since_s for at_s in self.confirmed_at_s.values())


class Outbox:
    """All ways out, over one publishing session after another.

    `on_change` is called when `pauses` or `open` may have changed. `make_probe` makes an empty message for a routing
    key that expires at once, and that is dropped where one of us gets it all the same: it finds out whether retries
    and dead letters can be published again when no event is left in hand that waits for it.
    """

    def __init__(self, topology: Topology, on_change: Callable[[], None], make_probe: Callable[[str], Message]) -> None:
        self._on_change = on_change
        self._make_probe = make_probe
        self._retry_key = topology.retry_key(Lane.LIVE, topology.delays_s[0])
        self._session: PublishingSession | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_read = False
        self._blocked: BrokerPause | None = None
        self.maximum_bytes: int | None = None
        """RabbitMQ's `max_message_size`, once it has refused a message for it."""
        parts = {
            WayOut.RESULTS: (topology.results_exchange, topology.of_results),
            WayOut.RETRIES: (topology.retry_exchange, topology.of_retries),
            WayOut.DEAD_LETTERS: (topology.dead_exchange, topology.of_dead_letters),
        }
        self._ways = {name: _Way(name, exchange, part) for name, (exchange, part) in parts.items()}

    @property
    def open(self) -> bool:
        """Whether everything can be published as far as is known: connected, not blocked, every way free."""
        return self._is_read and self._blocked is None and all(way.publisher for way in self._ways.values())

    @property
    def pauses(self) -> Mapping[str, BrokerPause]:
        """Why no event is to be taken, by reason. A lost connection is none: `BrokerState.phase` says that."""
        found = {BLOCKED: self._blocked} if self._blocked is not None else {}
        for way in self._ways.values():
            if way.shut is not None and way.shut.own_fault:
                message = f"{way.name.replace('_', ' ')} cannot be published: {way.shut.error}; {_WHAT_TO_DO[way.name]}"
                found[way.name.pause] = BrokerPause(way.shut.since_s, message)
        return found

    @property
    def held(self) -> int:
        """How many messages are held."""
        return sum(len(way.held) for way in self._ways.values())

    async def publish(self, name: WayOut, message: Message) -> None:
        """Publish a message; returns when RabbitMQ has confirmed it, however long that takes.

        Raises Unpublishable, and Unroutable where only the message's own routing key has no queue.
        """
        way = self._ways[name]
        while True:
            publisher = way.publisher
            if publisher is not None and self._blocked is None:
                try:
                    await publisher.publish(way.exchange, message.routing_key, message.body, message.properties)
                except Unpublishable:
                    self.maximum_bytes = publisher.maximum_bytes
                    if not publisher.is_open:
                        self._reopen(way, publisher)
                    raise
                except NotPublished as error:
                    if isinstance(error, Unroutable) and await self._was_migrated(way, publisher):
                        continue
                    if isinstance(error, Unroutable) and way.is_keys_own_fault(message.routing_key):
                        raise
                    self._shut(way, publisher, error, message.routing_key)
                else:
                    way.note_confirm(message.routing_key)
                    return
            if await self._hold(way, message):
                return

    async def _was_migrated(self, way: _Way, publisher: Publisher) -> bool:
        """Whether what no queue takes has another exchange, and had none when the publisher was opened."""
        if self._session is None or not way.part.shares_results or publisher.besides:
            return False
        with suppress(AutotagError):  # then it is as unroutable as it was
            await self._session.open_way(way.name, way.part)
        return bool(publisher.besides)

    # The connection

    def on_session(self, session: PublishingSession | None) -> None:
        """The publishing connection was made, or lost (None)."""
        if session is self._session:
            return
        self._session = session
        self._is_read = False
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        for way in self._ways.values():
            way.publisher = None
        if session is not None:
            self._reading = asyncio.create_task(self._find_out_if_read(session), name="amqp probe")

    def on_blocked(self, reason: str | None) -> None:
        """RabbitMQ blocks the connection, for a reason, or no longer does (None)."""
        if reason is not None and self._blocked is None:
            _log.warning("RabbitMQ has blocked publishing", why=reason)
            message = (
                f"RabbitMQ has blocked publishing ({reason}): it lacks memory or disk space, and takes nothing until "
                "that is freed; events wait in their queue"
            )
            self._blocked = BrokerPause(time.monotonic(), message)
        elif reason is None and self._blocked is not None and self._is_read:
            self._unblock()

    def _unblock(self) -> None:
        assert self._blocked is not None  # noqa: S101 - the callers have looked
        _log.info("RabbitMQ no longer blocks publishing", after_s=round(time.monotonic() - self._blocked.since_s, 1))
        self._blocked = None
        for way in self._ways.values():
            if way.publisher is not None:
                self._release_all(way)
            way.hurry.set()

    async def _find_out_if_read(self, session: PublishingSession) -> None:
        """A new connection in an alarm is blocked only once something is published: so that goes first."""
        if not await session.is_read() or session is not self._session:
            return
        self._is_read = True
        if session.refusal is not None:
            self._shut_by_refusal(self._ways[WayOut.RETRIES], session.refusal)
        if self._blocked is not None and session.connection.blocked is None:
            self._unblock()
        for way in self._ways.values():
            if way.probing is None:
                way.probing = asyncio.create_task(self._open(way), name=f"amqp {way.name}")
            way.hurry.set()

    async def close(self) -> None:
        """Give up what is held."""
        tasks = [task for task in (self._reading, *(way.probing for way in self._ways.values())) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # A way that is not free

    async def _hold(self, way: _Way, message: Message) -> bool:
        """Wait until the message was confirmed as the probe (True), or the way is free again (False)."""
        message.released = asyncio.get_running_loop().create_future()
        way.held[message] = None
        try:
            return await message.released
        except asyncio.CancelledError:
            if message.publishable_late:
                way.kept = message
            raise
        finally:
            way.held.pop(message, None)

    def _shut(self, way: _Way, publisher: Publisher, error: NotPublished, key: str) -> None:
        """A message was not confirmed: what follows is held, unless the way was opened again in the meantime."""
        if way.publisher is not publisher and way.publisher is not None:
            return
        way.publisher = None
        way.last_key = key
        session = self._session
        connected = session is not None and not session.connection.lost.done()
        if way.shut is None:
            way.shut = _Shut(time.monotonic(), error, own_fault=connected)
        if connected:
            _log.warning("not taken by RabbitMQ", way=way.name.value, error=str(error), held=len(way.held) + 1)
        if way.probing is None and self._is_read:
            way.probing = asyncio.create_task(self._open(way, _FIRST_PAUSE_S), name=f"amqp {way.name}")
        self._on_change()

    def _shut_by_refusal(self, way: _Way, refusal: AutotagError) -> None:
        """Nothing may be published on the new connection: that is known before an event is taken for it."""
        if way.last_key is None:
            way.last_key = self._retry_key
        self._note_failure(way, refusal, own_fault=True)

    def _reopen(self, way: _Way, publisher: Publisher) -> None:
        """RabbitMQ has closed the channel over one message: that is no fault of the way."""
        if way.publisher is publisher:
            way.publisher = None
            if way.probing is None:
                way.probing = asyncio.create_task(self._open(way), name=f"amqp {way.name}")

    async def _open(self, way: _Way, pause_s: float = 0.0) -> None:
        """Try, until the way is free; without a connection, wait for one."""
        try:
            while True:
                if pause_s:
                    await self._pause(way, pause_s)
                if (session := self._session) is None or not self._is_read:
                    way.hurry.clear()
                    await way.hurry.wait()
                    pause_s = 0.0
                    continue
                try:
                    publisher = await self._try_or_explain(way, session)
                except AutotagError as error:
                    connected = session is self._session and not session.connection.lost.done()
                    self._note_failure(way, error, own_fault=connected)
                    pause_s = min(_LONGEST_PAUSE_S, pause_s * 2 or _FIRST_PAUSE_S)
                    continue
                if session is self._session:
                    self._free(way, publisher)
                    return
        finally:
            way.probing = None

    async def _pause(self, way: _Way, pause_s: float) -> None:
        way.hurry.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(way.hurry.wait(), pause_s)

    async def _try_or_explain(self, way: _Way, session: PublishingSession) -> Publisher:
        """`_try`, and a bug of ours is one failure more: the way must not stay shut for good."""
        try:
            return await self._try(way, session)
        except AutotagError:
            raise
        except Exception as error:
            _log.exception("unexpected error while publishing", way=way.name.value)
            text = f"unexpected {type(error).__name__}: {error}"
            raise BrokerUnreachable(text, reason="internal_error") from error

    async def _try(self, way: _Way, session: PublishingSession) -> Publisher:
        """Declare or look for what the way needs, and publish a probe if the way was shut. Raises AutotagError."""
        publisher = await session.open_way(way.name, way.part)
        publisher.maximum_bytes = self.maximum_bytes
        unroutable: dict[str, Unroutable] = {}
        while (message := self._next_probe(way, unroutable)) is not None:
            try:
                await publisher.publish(way.exchange, message.routing_key, message.body, message.properties)
            except Unpublishable as error:
                self.maximum_bytes = publisher.maximum_bytes
                message.fail(error)
                way.held.pop(message, None)
                if way.kept is message:
                    way.kept = None
                if not publisher.is_open:
                    publisher = await session.open_way(way.name, way.part)
                    publisher.maximum_bytes = self.maximum_bytes
            except Unroutable as error:
                way.confirmed_at_s.pop(message.routing_key, None)
                unroutable[message.routing_key] = error
            else:
                way.note_confirm(message.routing_key)
                message.release(confirmed=True)
                self._fail_unroutable(way, unroutable)
                return publisher
        if unroutable:
            raise next(iter(unroutable.values()))
        return publisher

    def _next_probe(self, way: _Way, unroutable: Mapping[str, Unroutable]) -> Message | None:
        """The message to try next: the oldest, of a routing key that is not known to be unroutable."""
        if way.shut is None:
            return None  # a way that was never shut needs no probe
        for message in way.held:
            if message.routing_key not in unroutable and message.can_be_probe:
                return message
        if unroutable:
            return None
        if way.kept is not None:
            return way.kept
        if way.name is not WayOut.RESULTS and way.last_key is not None:
            return self._make_probe(way.last_key)
        return None  # nothing can stand for a result: its readers are not ours

    def _fail_unroutable(self, way: _Way, unroutable: Mapping[str, Unroutable]) -> None:
        """Another routing key was confirmed: those without a queue are no fault of the way."""
        for message in way.held:
            if (error := unroutable.get(message.routing_key)) is not None:
                message.fail(error)

    def _note_failure(self, way: _Way, error: AutotagError, *, own_fault: bool) -> None:
        known = str(way.shut.error) if way.shut is not None else None
        if way.shut is None:
            way.shut = _Shut(time.monotonic(), error, own_fault)
        elif own_fault:
            way.shut.error, way.shut.own_fault = error, True
        if own_fault and str(error) != known:
            _log.warning("not taken by RabbitMQ", way=way.name.value, error=str(error), held=len(way.held))
        self._on_change()

    def _free(self, way: _Way, publisher: Publisher) -> None:
        if way.shut is not None and way.shut.own_fault:
            after_s = round(time.monotonic() - way.shut.since_s, 1)
            _log.info("taken by RabbitMQ again", way=way.name.value, held=len(way.held), after_s=after_s)
        way.publisher, way.shut, way.kept = publisher, None, None
        if self._blocked is None:
            self._release_all(way)
        self._on_change()

    def _release_all(self, way: _Way) -> None:
        for message in way.held:
            message.release(confirmed=False)

"""The service's one connection to RabbitMQ, kept up for as long as it lives.

One loop does it all: connect, bring what is there in line with what is wanted, sleep until something changes. A closed
channel, a deleted queue, a pause are differences that a `Session` mends; with a lost connection the loop begins again,
after a pause that grows and is never the same for two workers.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pika
import structlog

from worker.amqp.declare import depths
from worker.amqp.delivery import Delivery
from worker.amqp.errors import BrokerUnreachable, NotConfirmed, Unroutable
from worker.amqp.publisher import message_properties
from worker.amqp.republish import to_retry, to_set_aside
from worker.amqp.session import Session
from worker.amqp.state import BrokerState, Phase
from worker.amqp.topology import Lane, Topology
from worker.errors import AutotagError, Misconfigured
from worker.messages import OutgoingMessage
from worker.settings import AmqpSettings

_log = structlog.get_logger(__name__)

_CLOSING = "closing"
_FIRST_PAUSE_S = 0.5
_STEADY_AFTER_S = 10.0
"""A connection that held for so long was a good one: the next pause is a short one again."""


class Broker:
    """Deliveries in, messages out. `on_delivery` and `on_state` are called in the event loop and must not wait.

    `lanes` names the lanes to consume and how many deliveries of each to hold at once; by default both, with the whole
    prefetch for live and a quarter of it for bulk.
    """

    def __init__(
        self,
        settings: AmqpSettings,
        layout: Topology,
        on_delivery: Callable[[Delivery], None],
        on_state: Callable[[BrokerState], None] = lambda _: None,
        *,
        lanes: Mapping[Lane, int] | None = None,
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._on_delivery = on_delivery
        self._on_state = on_state
        self._lanes = dict(lanes or {Lane.LIVE: settings.prefetch, Lane.BULK: max(1, settings.prefetch // 4)})
        self._session: Session | None = None
        self._pauses: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._first_time = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._reconnects = 0
        self._in_line_at_s = math.inf
        self._told = BrokerState(Phase.CONNECTING, time.monotonic(), wanted=frozenset(self._lanes))

    @property
    def prefix(self) -> str:
        """What the names of all our queues begin with."""
        return self._layout.prefix

    @property
    def state(self) -> BrokerState:
        """How things stand now."""
        session = self._session
        if session is None:
            return self._told
        return replace(
            self._told,
            lanes=session.lanes,
            blocked=session.link.blocked,
            paused=frozenset(self._pauses),
            unsettled=session.consumer.unsettled if session.consumer else 0,
            unconfirmed=session.publisher.in_flight if session.publisher else 0,
        )

    # Life

    async def start(self) -> None:
        """Connect, and return once consuming (or, if paused already, once it could). Waits for a broker for ever."""
        self._task = asyncio.create_task(self._run(), name="amqp")
        await self._first_time.wait()

    async def close(self) -> None:
        """Stop consuming and disconnect. The broker takes back what is not settled. Closing twice is harmless."""
        self._pauses.add(_CLOSING)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._tell(Phase.CLOSED)

    async def stop_consuming(self, reason: str) -> None:
        """Take no new delivery from now on, until `resume_consuming` has lifted this reason and all others.

        What is in hand stays in hand. Returns when RabbitMQ has ended the consumers, or has not answered for
        `connection_timeout_s`.
        """
        self._pauses.add(reason)
        await self._brought_in_line()

    async def resume_consuming(self, reason: str) -> None:
        """Lift a reason; with the last one, consume again."""
        self._pauses.discard(reason)
        await self._brought_in_line()

    # Publishing

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        content_type: str | None,
        headers: Mapping[str, object],
        message_id: str,
        persistent: bool = True,
    ) -> None:
        """Publish a message, and return when RabbitMQ has confirmed that it is safe. Many may be under way at once.

        Raises NotPublished: Unroutable, PublishRefused, Unpublishable, or NotConfirmed.
        """
        properties = message_properties(
            content_type=content_type, headers=headers, message_id=message_id, persistent=persistent
        )
        await self._publish(exchange, routing_key, body, properties)

    async def publish_result(self, result: OutgoingMessage) -> None:
        """Publish a result. Raises NotPublished."""
        await self.publish(
            self._layout.results_exchange,
            result.routing_key,
            result.body,
            content_type=result.content_type,
            headers=result.headers,
            message_id=result.message_id,
        )

    async def retry_later(
        self,
        delivery: Delivery,
        *,
        at_least_s: float = 0.0,
        headers: Mapping[str, object] | None = None,
        counted: bool = True,
    ) -> float:
        """Publish a delivery's message into a retry lane and return the delay in seconds; the caller then acks it.

        It comes back as the next attempt or, if not `counted`, as the same one. Raises NotPublished.
        """
        delay_s = self._layout.retry_delay_s(delivery.attempt, at_least_s)
        properties = to_retry(delivery, headers or {}, attempt=delivery.attempt + counted)
        key = self._layout.retry_key(delivery.lane, delay_s)
        await self._publish(self._layout.retry_exchange, key, delivery.body, properties)
        return delay_s

    async def dead_letter(
        self,
        delivery: Delivery,
        reason: str,
        message: str,
        *,
        asset: str | None = None,
        instance: str | None = None,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        """Publish a delivery's message, with why it could not be done, to the dead letters; the caller then acks it.

        Raises NotPublished.
        """
        properties = to_set_aside(
            delivery, reason, message, asset=asset, instance=instance, headers=headers or {}, now=datetime.now(UTC)
        )
        await self._publish(self._layout.dead_exchange, delivery.lane.value, delivery.body, properties)

    async def depths(self) -> dict[str, int]:
        """Messages ready in each of our queues. Raises BrokerUnreachable, also when RabbitMQ has blocked us."""
        if self._session is None:
            raise BrokerUnreachable(f"not connected to RabbitMQ: {self._why_not()}")
        if (blocked := self._session.link.blocked) is not None:
            raise BrokerUnreachable(f"RabbitMQ answers nothing while it blocks publishing: {blocked}")
        return await depths(self._session.link, self._layout)

    async def _publish(self, exchange: str, routing_key: str, body: bytes, properties: pika.BasicProperties) -> None:
        session = self._session
        if session is None or session.publisher is None:
            raise NotConfirmed(f"message {properties.message_id} was not sent: {self._why_not()}")
        try:
            await session.publisher.publish(exchange, routing_key, body, properties)
        except Unroutable:
            session.doubt()
            raise

    def _why_not(self) -> str:
        return self._told.last_error or "there is no connection yet"

    # The loop

    async def _run(self) -> None:
        failures = 0
        while True:
            self._in_line_at_s = math.inf
            try:
                await self._connect_and_serve()
            except AutotagError as error:
                reason: AutotagError = error
            except Exception as error:  # noqa: BLE001 - a fault of ours must not leave a worker that does nothing
                _log.exception("unexpected error on the connection to RabbitMQ")
                reason = BrokerUnreachable(f"unexpected {type(error).__name__}: {error}", reason="internal_error")
            failures = 1 if time.monotonic() - self._in_line_at_s > _STEADY_AFTER_S else min(failures + 1, 16)
            longest_s = min(self._settings.reconnect_max_s, _FIRST_PAUSE_S * 2**failures)
            pause_s = random.uniform(0, longest_s)  # noqa: S311 - full jitter keeps workers apart, it guards no secret
            self._report(reason, pause_s)
            await asyncio.sleep(pause_s)

    async def _connect_and_serve(self) -> None:
        """One connection's life. Ends by raising the reason for its end."""
        self._tell(Phase.CONNECTING)
        session = await Session.open(
            self._settings, self._layout, self._lanes, self._on_delivery, lambda: bool(self._pauses), self._wake.set
        )
        self._session = session
        try:
            await self._serve(session)
        finally:
            self._session = None
            self._release(self._waiting)
            self._tell(Phase.CLOSED if _CLOSING in self._pauses else Phase.WAITING)
            await session.close()

    async def _serve(self, session: Session) -> None:
        while True:
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await session.bring_in_line(paused=bool(self._pauses))
            finally:
                self._release(waiting)
            if not self._told.connected:
                self._reconnects += self._first_time.is_set()
                self._in_line_at_s = time.monotonic()
                paused = sorted(map(str, self._pauses))
                _log.info("connected to RabbitMQ", broker=str(session.link.broker), paused=paused)
            self._tell(Phase.PAUSED if self._pauses else Phase.CONSUMING)
            self._first_time.set()
            await self._wake.wait()

    async def _brought_in_line(self) -> None:
        """Have the loop look again, and wait until it has; without a connection there is nothing to wait for."""
        if self._session is None:
            self._tell(self._told.phase)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wake.set()
        await asyncio.wait({done}, timeout=self._settings.connection_timeout_s)

    @staticmethod
    def _release(waiting: list[asyncio.Future[None]]) -> None:
        for done in waiting:
            if not done.done():
                done.set_result(None)
        waiting.clear()

    # Telling

    def _tell(self, phase: Phase, error: AutotagError | None = None) -> None:
        """Make a snapshot, and pass it on if anything in it is new."""
        before, session = self._told, self._session
        why = (before.last_error, before.last_error_reason)  # holds until things are in line again
        if phase in (Phase.CONSUMING, Phase.PAUSED):
            why = (None, None)
        elif error is not None:
            why = (str(error), error.reason)
        now = BrokerState(
            phase,
            since_s=before.since_s if phase is before.phase else time.monotonic(),
            wanted=before.wanted,
            lanes=session.lanes if session else frozenset(),
            paused=frozenset(self._pauses),
            blocked=session.link.blocked if session else None,
            last_error=why[0],
            last_error_reason=why[1],
            reconnects=self._reconnects,
        )
        if now == before:
            return
        self._told = now
        if now.blocked and not before.blocked:
            _log.warning("RabbitMQ has blocked publishing", why=now.blocked)
        elif before.blocked and not now.blocked:
            _log.info("RabbitMQ no longer blocks publishing")
        # Soon, not now: whatever it raises is then nobody's business but the event loop's.
        asyncio.get_running_loop().call_soon(self._on_state, now)

    def _report(self, error: AutotagError, pause_s: float) -> None:
        self._tell(Phase.WAITING, error)
        log = _log.error if isinstance(error, Misconfigured) else _log.warning
        log("no connection to RabbitMQ", reason=error.reason, error=str(error), next_try_in_s=round(pause_s, 1))

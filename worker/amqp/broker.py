"""The service's single connection to RabbitMQ, kept up for the life of the service.

One loop does everything: it connects, reconciles what is open with what is wanted, and sleeps until something changes.
A closed channel, a deleted queue and a pause are differences that `Session.reconcile` removes; after a lost connection
the loop connects again, after a jittered pause that grows.
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
from worker.amqp.in_hand import lane_prefetch
from worker.amqp.mark import HeaderCheck, HeaderMark
from worker.amqp.publisher import message_properties
from worker.amqp.republish import dead_letter_properties, retry_properties
from worker.amqp.session import Session
from worker.amqp.state import BrokerPhase, BrokerState
from worker.amqp.topology import Lane, Topology
from worker.errors import AutotagError, Misconfigured
from worker.messages import OutgoingMessage
from worker.settings import AmqpSettings

_log = structlog.get_logger(__name__)

_CLOSING = "closing"
_FIRST_PAUSE_S = 0.5
_STABLE_AFTER_S = 10.0
"""A connection that lasted longer than this was a good one: the pause after its loss is a short one again."""


class Broker:
    """Consumes deliveries and publishes messages.

    `on_delivery` and `on_state` are called in the event loop and must not block. `lanes` maps each lane to consume to
    its prefetch; by default both lanes, live with the whole `amqp.prefetch` and bulk with a quarter of it.
    """

    def __init__(
        self,
        settings: AmqpSettings,
        topology: Topology,
        on_delivery: Callable[[Delivery], None],
        on_state: Callable[[BrokerState], None] = lambda _: None,
        *,
        lanes: Mapping[Lane, int] | None = None,
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._on_delivery = on_delivery
        self._on_state = on_state
        self._lanes = dict(lanes or lane_prefetch(settings.prefetch))
        self._mark = HeaderMark.of(settings)
        self._header_check = HeaderCheck(self._mark)
        self._session: Session | None = None
        self._pauses: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._connected_once = asyncio.Event()
        self._reconcile_waiters: list[asyncio.Future[None]] = []
        self._reconnects = 0
        self._connected_at_s = math.inf
        self._snapshot = BrokerState(BrokerPhase.CONNECTING, time.monotonic(), wanted=frozenset(self._lanes))
        """The state of which `on_state` was notified last."""

    @property
    def prefix(self) -> str:
        """The prefix of the names of all our queues."""
        return self._topology.prefix

    @property
    def state(self) -> BrokerState:
        """The current state."""
        session = self._session
        if session is None:
            return replace(self._snapshot, unmarked=self._header_check.unmarked)
        return replace(
            self._snapshot,
            unmarked=self._header_check.unmarked,
            lanes=session.lanes,
            blocked=session.connection.blocked,
            paused=frozenset(self._pauses),
            unsettled=session.consumer.unsettled if session.consumer else 0,
            unconfirmed=session.publisher.in_flight if session.publisher else 0,
        )

    # Starting and stopping

    async def start(self) -> None:
        """Connect, and return once consuming (or, if paused, once connected). Waits for RabbitMQ indefinitely."""
        self._task = asyncio.create_task(self._run(), name="amqp")
        await self._connected_once.wait()

    async def close(self) -> None:
        """Stop consuming and disconnect; RabbitMQ requeues what is not settled. Closing twice is harmless."""
        self._pauses.add(_CLOSING)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._update_state(BrokerPhase.CLOSED)

    async def stop_consuming(self, reason: str) -> None:
        """Accept no new delivery until `resume_consuming` has lifted this reason and all others.

        Deliveries in hand stay in hand. Returns when RabbitMQ has ended the consumers, or after `connection_timeout_s`
        without its reply.
        """
        self._pauses.add(reason)
        await self._reconcile()

    async def resume_consuming(self, reason: str) -> None:
        """Lift a reason; when it was the last one, consume again."""
        self._pauses.discard(reason)
        await self._reconcile()

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
        """Publish a message, and return when RabbitMQ has confirmed it. Calls may overlap.

        Raises NotPublished: Unroutable, PublishRefused, Unpublishable, or NotConfirmed.
        """
        properties = message_properties(
            content_type=content_type, headers=headers, message_id=message_id, persistent=persistent
        )
        await self._publish(exchange, routing_key, body, properties)

    async def publish_result(self, result: OutgoingMessage) -> None:
        """Publish a result. Raises NotPublished."""
        await self.publish(
            self._topology.results_exchange,
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
        exactly_s: float | None = None,
    ) -> float:
        """Publish a delivery's message to a retry queue and return the delay in seconds; the caller then acks it.

        The message returns as the next attempt or, if not `counted`, as the same one. `exactly_s`: not after the
        queue's delay, but as soon as this has passed and those before it have returned. Raises NotPublished.
        """
        properties = retry_properties(delivery, headers or {}, attempt=delivery.attempt + counted, mark=self._mark)
        if exactly_s is None:
            delay_s = self._topology.retry_delay_s(delivery.attempt, at_least_s)
        else:
            delay_s = self._topology.retry_delay_s(1, exactly_s)
            if exactly_s < delay_s:
                properties.expiration = str(max(1, round(exactly_s * 1000)))
        key = self._topology.retry_key(delivery.lane, delay_s)
        await self._publish(self._topology.retry_exchange, key, delivery.body, properties)
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
        """Publish a delivery's message and the reason for its failure to the dead letters; the caller then acks it.

        Raises NotPublished.
        """
        properties = dead_letter_properties(
            delivery,
            reason,
            message,
            asset=asset,
            instance=instance,
            headers=headers or {},
            now=datetime.now(UTC),
            mark=self._mark,
        )
        await self._publish(self._topology.dead_exchange, delivery.lane.value, delivery.body, properties)

    async def depths(self) -> dict[str, int]:
        """Number of messages ready in each of our queues. Raises BrokerUnreachable, also while RabbitMQ blocks us."""
        if self._session is None:
            raise BrokerUnreachable(f"not connected to RabbitMQ: {self._disconnect_reason()}")
        if (blocked := self._session.connection.blocked) is not None:
            raise BrokerUnreachable(f"RabbitMQ answers nothing while it blocks publishing: {blocked}")
        return await depths(self._session.connection, self._topology)

    async def _publish(self, exchange: str, routing_key: str, body: bytes, properties: pika.BasicProperties) -> None:
        session = self._session
        if session is None or session.publisher is None:
            raise NotConfirmed(f"message {properties.message_id} was not sent: {self._disconnect_reason()}")
        try:
            await session.publisher.publish(exchange, routing_key, body, properties)
        except Unroutable:
            session.on_unroutable()
            raise

    def _disconnect_reason(self) -> str:
        return self._snapshot.last_error or "there is no connection yet"

    # The loop

    async def _run(self) -> None:
        failures = 0
        while True:
            self._connected_at_s = math.inf
            try:
                await self._connect_and_serve()
            except AutotagError as error:
                reason: AutotagError = error
            except Exception as error:  # noqa: BLE001 - a bug of ours must not leave a worker that does nothing
                _log.exception("unexpected error on the connection to RabbitMQ")
                reason = BrokerUnreachable(f"unexpected {type(error).__name__}: {error}", reason="internal_error")
            failures = 1 if time.monotonic() - self._connected_at_s > _STABLE_AFTER_S else min(failures + 1, 16)
            longest_s = min(self._settings.reconnect_max_s, _FIRST_PAUSE_S * 2**failures)
            pause_s = random.uniform(0, longest_s)  # noqa: S311 - full jitter keeps workers apart, it guards no secret
            self._report_failure(reason, pause_s)
            await asyncio.sleep(pause_s)

    async def _connect_and_serve(self) -> None:
        """Open one session and serve until it fails. Never returns; raises the reason for its end."""
        self._update_state(BrokerPhase.CONNECTING)
        session = await Session.open(
            self._settings,
            self._topology,
            self._lanes,
            self._header_check,
            self._on_delivery,
            lambda: bool(self._pauses),
            self._wake.set,
        )
        self._session = session
        try:
            await self._serve(session)
        finally:
            self._session = None
            self._release(self._reconcile_waiters)
            self._update_state(BrokerPhase.CLOSED if _CLOSING in self._pauses else BrokerPhase.WAITING)
            await session.close()

    async def _serve(self, session: Session) -> None:
        while True:
            self._wake.clear()
            waiters, self._reconcile_waiters = self._reconcile_waiters, []
            try:
                await session.reconcile(paused=bool(self._pauses))
            finally:
                self._release(waiters)
            if not self._snapshot.connected:
                self._reconnects += self._connected_once.is_set()
                self._connected_at_s = time.monotonic()
                paused = sorted(map(str, self._pauses))
                _log.info("connected to RabbitMQ", broker=str(session.connection.broker), paused=paused)
            self._update_state(BrokerPhase.PAUSED if self._pauses else BrokerPhase.CONSUMING)
            self._connected_once.set()
            await self._wake.wait()

    async def _reconcile(self) -> None:
        """Have the loop reconcile, and wait until it has; without a connection there is nothing to wait for."""
        if self._session is None:
            self._update_state(self._snapshot.phase)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reconcile_waiters.append(done)
        self._wake.set()
        await asyncio.wait({done}, timeout=self._settings.connection_timeout_s)

    @staticmethod
    def _release(waiters: list[asyncio.Future[None]]) -> None:
        for done in waiters:
            if not done.done():
                done.set_result(None)
        waiters.clear()

    # State

    def _update_state(self, phase: BrokerPhase, error: AutotagError | None = None) -> None:
        """Take a snapshot, and notify `on_state` if it differs from the last one."""
        before, session = self._snapshot, self._session
        last_error = (before.last_error, before.last_error_reason)  # kept until the connection is usable again
        if phase in (BrokerPhase.CONSUMING, BrokerPhase.PAUSED):
            last_error = (None, None)
        elif error is not None:
            last_error = (str(error), error.reason)
        now = BrokerState(
            phase,
            since_s=before.since_s if phase is before.phase else time.monotonic(),
            wanted=before.wanted,
            lanes=session.lanes if session else frozenset(),
            paused=frozenset(self._pauses),
            blocked=session.connection.blocked if session else None,
            last_error=last_error[0],
            last_error_reason=last_error[1],
            reconnects=self._reconnects,
            unmarked=self._header_check.unmarked,
        )
        if now == before:
            return
        self._snapshot = now
        if now.blocked and not before.blocked:
            _log.warning("RabbitMQ has blocked publishing", why=now.blocked)
        elif before.blocked and not now.blocked:
            _log.info("RabbitMQ no longer blocks publishing")
        # Scheduled instead of called: an exception in it then reaches the event loop's handler and not our caller.
        asyncio.get_running_loop().call_soon(self._on_state, now)

    def _report_failure(self, error: AutotagError, pause_s: float) -> None:
        self._update_state(BrokerPhase.WAITING, error)
        log = _log.error if isinstance(error, Misconfigured) else _log.warning
        log("no connection to RabbitMQ", reason=error.reason, error=str(error), next_try_in_s=round(pause_s, 1))

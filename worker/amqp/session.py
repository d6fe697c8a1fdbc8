"""One connection and what is kept open on it: a consumer for each lane, or a publisher for each way out.

There are two, as RabbitMQ advises (https://www.rabbitmq.com/docs/alarms): while a memory or disk alarm is raised it
reads nothing from connections that publish, so acks and cancels need a connection of their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import structlog

from worker.amqp.connection import Connection
from worker.amqp.consumer import Consumer, Receiver
from worker.amqp.copies import Copies
from worker.amqp.declare import HOW_TO_SHARE, as_it_is_there, declare, exists, find_missing
from worker.amqp.diagnosis import PERMISSION_REFUSED, channel_end, refusal_error
from worker.amqp.errors import BrokerUnreachable, NotPublished
from worker.amqp.mark import HeaderCheck
from worker.amqp.publisher import Besides, Publisher
from worker.amqp.state import BrokerPause
from worker.amqp.topology import Lane, Topology
from worker.errors import AutotagError, Misconfigured
from worker.settings import AmqpSettings

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
"""Between two attempts to consume a lane whose queue is missing, differs, or has lost its majority."""

_WIDENED_AFTER_S = 60.0

_SHORTEST_CONSUMER_TIMEOUT_S = 60.0
"""RabbitMQ supports no shorter `consumer_timeout` (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout)."""


class _LaneState:
    """What is known of one lane on this connection. `prefetch` is lowered while its messages are very large."""

    def __init__(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self.prefetch_since_s = time.monotonic()
        self.consumer: Consumer | None = None
        self.work: asyncio.Task[None] | None = None
        """While it is being reconciled."""
        self.again = False
        """Whether it is to be reconciled once more after that."""
        self.looked_at = False
        self.declared = False
        self.losses = 0
        """How often its queue may have been lost."""
        self.failures = 0
        self.try_again_at_s = 0.0
        self.fault: BrokerPause | None = None
        self.cancelled_by_broker = False


class ConsumingSession:
    """Lives from connecting to the loss of the connection that consumes and acks.

    `prefetch` has the lanes to consume; `check` drops headers that only look like ours. `is_paused` returns whether
    nothing is to be consumed, `gives_back` whether what arrives meanwhile is for other workers. `on_change` is called
    when `reconcile` may have work to do, `on_reconciled` when it has done what it could for a lane.
    """

    def __init__(
        self,
        connection: Connection,
        settings: AmqpSettings,
        topology: Topology,
        prefetch: Mapping[Lane, int],
        check: HeaderCheck,
        receiver: Receiver,
        *,
        gives_back: Callable[[], bool],
        on_change: Callable[[], None],
        on_reconciled: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._topology = topology
        self._prefetch = prefetch
        self._check = check
        self._receiver = receiver
        self._gives_back = gives_back
        self._on_change = on_change
        self._on_reconciled = on_reconciled
        self._states = {lane: _LaneState(number) for lane, number in prefetch.items()}

    @property
    def connection(self) -> Connection:
        """The connection."""
        return self._connection

    @property
    def lanes(self) -> frozenset[Lane]:
        """The lanes being consumed."""
        return frozenset(lane for lane, it in self._states.items() if it.consumer and it.consumer.consuming)

    @property
    def consumers(self) -> list[Consumer]:
        """Each lane's consumer, as far as they are open."""
        return [it.consumer for it in self._states.values() if it.consumer and it.consumer.is_open]

    @property
    def unsettled(self) -> int:
        """How many deliveries are in hand and not settled."""
        return sum(each.unsettled for each in self.consumers)

    @property
    def faults(self) -> dict[Lane, BrokerPause]:
        """Why a lane cannot be consumed, for each of which that is known."""
        return {lane: it.fault for lane, it in self._states.items() if it.fault is not None}

    @property
    def declared(self) -> frozenset[Lane]:
        """The lanes whose queues are known to be as they should be."""
        return frozenset(lane for lane, it in self._states.items() if it.declared)

    @property
    def looked_at(self) -> bool:
        """Whether each lane has been reconciled, or has failed to be."""
        return all(it.looked_at for it in self._states.values())

    async def reconcile(self) -> None:
        """Have each lane declared, opened, consumed and cancelled as wanted. No lane waits for another, nor does this.

        Raises BrokerUnreachable when the connection is lost; the session cannot be used after that.
        """
        if self._connection.lost.done():
            raise self._connection.lost.result()
        self._begin()

    async def settle(self, timeout_s: float) -> None:
        """`reconcile`, and wait until it is done for all lanes."""
        await asyncio.wait(self._begin(), timeout=timeout_s)

    def _begin(self) -> list[asyncio.Task[None]]:
        tasks = []
        for lane, it in self._states.items():
            it.again = True
            if it.work is None:
                it.work = asyncio.create_task(self._work(lane, it), name=f"amqp lane {lane}")
            tasks.append(it.work)
        return tasks

    async def _work(self, lane: Lane, it: _LaneState) -> None:
        try:
            while it.again:
                it.again = False
                await self._reconcile_lane(lane, it)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave a lane that is never consumed again
            _log.exception("unexpected error while a lane was reconciled", lane=lane.value)
            text = f"unexpected {type(error).__name__}: {error}"
            self._on_fault(lane, it, BrokerUnreachable(text, reason="internal_error"))
        finally:
            it.looked_at, it.work = True, None
        self._on_reconciled()

    async def _reconcile_lane(self, lane: Lane, it: _LaneState) -> None:
        if self._connection.lost.done():
            return
        try:
            if it.cancelled_by_broker:
                it.cancelled_by_broker = False
                await self._judge_cancel(lane, it)
            if self._receiver.is_paused:
                await self._stop(it)
            if time.monotonic() >= it.try_again_at_s:
                await self._declare(lane, it)
                if not self._receiver.is_paused:
                    await self._consume(lane, it)
        except AutotagError as error:
            if self._connection.lost.done():
                return
            self._on_fault(lane, it, error)
        if it.consumer is not None and it.consumer.is_open and not self._receiver.is_paused:
            it.consumer.deliver_held()

    async def shed(self) -> None:
        """End all consumers, so that the receiver's `is_full` requeues what RabbitMQ has sent already; read it.

        The next consumers have a prefetch of what is in hand now, since so much of such messages fits.
        """
        ending = []
        for it in self._states.values():
            if it.consumer is not None and it.consumer.begun:
                if it.consumer.unsettled:
                    it.prefetch, it.prefetch_since_s = it.consumer.unsettled, time.monotonic()
                ending.append(asyncio.create_task(it.consumer.cancel()))
        await asyncio.sleep(0)  # RabbitMQ does what is written in its order: it sends nothing again that is requeued
        self._connection.resume_reading()
        await asyncio.gather(*ending, return_exceptions=True)  # a failure is the connection's, which is noticed there

    async def widen(self) -> None:
        """Double a prefetch that `shed` has lowered, where that was a minute ago."""
        await asyncio.gather(*(self._widen(lane, it) for lane, it in self._states.items()))

    async def _widen(self, lane: Lane, it: _LaneState) -> None:
        lowered = it.prefetch < self._prefetch[lane]
        if not lowered or it.consumer is None or time.monotonic() - it.prefetch_since_s < _WIDENED_AFTER_S:
            return
        it.prefetch, it.prefetch_since_s = min(2 * it.prefetch, self._prefetch[lane]), time.monotonic()
        if it.consumer.consuming:
            with suppress(AutotagError):  # the connection's failure, which is noticed there
                await it.consumer.cancel()
            self._on_change()

    async def give_back(self, received_before_s: float) -> None:
        """Requeue what has been in hand since before this time (monotonic), after ending its consumer.

        If nothing is paused, `reconcile` consumes again: the event comes back at once, to whichever worker is free.
        """
        await asyncio.gather(*(self._give_back(consumer, received_before_s) for consumer in self.consumers))

    async def _give_back(self, consumer: Consumer, received_before_s: float) -> None:
        if consumer.oldest_s is None or consumer.oldest_s >= received_before_s:
            return
        ending = asyncio.create_task(consumer.cancel()) if consumer.begun else None
        # RabbitMQ does what is written in its order: it has ended the consumer before it requeues.
        await asyncio.sleep(0)
        number = consumer.give_back(received_before_s)
        _log.warning(
            "events were in hand for longer than amqp.hold_s without an end; they go back to their queue",
            lane=consumer.lane.value,
            events=number,
        )
        if ending is not None:
            await asyncio.wait({ending})
            ending.exception()  # a failure is the connection's, which is noticed there
        self._on_change()

    async def _stop(self, it: _LaneState) -> None:
        if it.consumer is None or not it.consumer.is_open:
            return
        if it.consumer.consuming:
            await it.consumer.cancel()
        if self._gives_back():
            it.consumer.requeue_held()

    async def _declare(self, lane: Lane, it: _LaneState) -> None:
        if it.declared:
            return
        losses = it.losses
        await _prepare(self._connection, self._settings, self._topology.of_lane(lane))
        it.declared = it.losses == losses

    async def _consume(self, lane: Lane, it: _LaneState) -> None:
        if it.consumer is None or not it.consumer.is_open:
            it.consumer = await self._new_consumer(lane, it)
        room = it.consumer.room(it.prefetch, self._on_change)
        if it.consumer.consuming and it.consumer.prefetch < room == it.prefetch:
            await it.consumer.cancel()  # begun while much was in hand: now it may have more
        if not it.consumer.consuming:
            await it.consumer.consume(self._topology.lane_queue(lane), room)
        if it.fault is not None:
            _log.info(
                "a lane is consumed again", lane=lane.value, after_s=round(time.monotonic() - it.fault.since_s, 1)
            )
        it.fault, it.failures = None, 0

    async def _new_consumer(self, lane: Lane, it: _LaneState) -> Consumer:
        channel = await self._connection.channel()

        def lose() -> None:
            it.declared = False
            it.losses += 1

        def on_cancelled() -> None:
            it.cancelled_by_broker = True
            lose()
            self._on_change()

        def on_closed(closed: asyncio.Future[BaseException]) -> None:
            lose()
            _explain_end(closed, lane=lane.value)
            self._on_change()

        consumer = Consumer(lane, channel, self._check, self._receiver, on_cancelled)
        consumer.closed.add_done_callback(on_closed)
        return consumer

    async def _judge_cancel(self, lane: Lane, it: _LaneState) -> None:
        """RabbitMQ has ended a consumer with its channel left open: is what is in hand still ours?

        With a deleted queue it can still be answered and acked. From 4.3 a consumer timeout ends the consumer alone and
        requeues what it had; that takes a minute at least. A queue that exists may have been declared again by another
        worker, so the age decides too.
        """
        queue = self._topology.lane_queue(lane)
        consumer = it.consumer
        oldest_s = consumer.oldest_s if consumer is not None else None
        there = await exists(self._connection, queue)
        lost = (
            there
            and consumer is not None
            and oldest_s is not None
            and time.monotonic() - oldest_s >= _SHORTEST_CONSUMER_TIMEOUT_S
        )
        _log.warning(
            "RabbitMQ ended a consumer; was its queue deleted?"
            if not lost
            else "RabbitMQ ended a consumer, and takes back what it had: its consumer_timeout ran out",
            lane=lane.value,
            in_hand=consumer.unsettled if consumer is not None else 0,
        )
        if lost and consumer is not None:
            consumer.lose_all()

    def _on_fault(self, lane: Lane, it: _LaneState, error: AutotagError) -> None:
        it.failures += 1
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (it.failures - 1))
        it.try_again_at_s = time.monotonic() + pause_s
        asyncio.get_running_loop().call_later(pause_s, self._on_change)
        since_s = it.fault.since_s if it.fault is not None else time.monotonic()
        message = f"lane {lane} cannot be consumed: {error}"
        log = _log.error if isinstance(error, Misconfigured) else _log.warning
        if it.fault is None or it.fault.message != message:
            log("a lane cannot be consumed", lane=lane.value, reason=error.reason, error=str(error), pause_s=pause_s)
        it.fault = BrokerPause(since_s, message)

    async def close(self) -> None:
        """Disconnect; RabbitMQ requeues what is not settled."""
        await self._connection.close()
        for task in [it.work for it in self._states.values() if it.work is not None]:
            task.cancel()
            await asyncio.wait({task})
        for it in self._states.values():
            if it.consumer is not None:
                it.consumer.lose_all()


class PublishingSession:
    """Lives from connecting to the loss of the connection that publishes. Each exchange has a channel of its own, since
    RabbitMQ closes the channel over a missing exchange, a missing right, or a message that is too large.
    """

    def __init__(
        self, connection: Connection, settings: AmqpSettings, topology: Topology, on_change: Callable[[], None]
    ) -> None:
        self.at_large: Publisher | None = None
        """For whatever has no way out of its own, and for `is_read`."""
        self.refusal: Misconfigured | None = None
        """Why nothing may be published on this connection, if `is_read` has found that."""
        self._connection = connection
        self._settings = settings
        self._topology = topology
        self._of_ways: dict[str, Publisher] = {}
        self._copies = Copies(topology.copies_exchange, self._open_copies)
        self._on_change = on_change

    @property
    def connection(self) -> Connection:
        """The connection."""
        return self._connection

    @property
    def in_flight(self) -> int:
        """How many messages are sent and not yet confirmed."""
        publishers = [*self._of_ways.values(), *([self.at_large] if self.at_large else [])]
        return sum(each.in_flight for each in publishers)

    async def reconcile(self) -> None:
        """Open the publisher at large. Raises BrokerUnreachable; the session cannot be used after that."""
        if self.at_large is None or not self.at_large.is_open:
            maximum_bytes = self.at_large.maximum_bytes if self.at_large is not None else None
            self.at_large = await Publisher.open(self._connection, self._settings.confirm_timeout_s)
            self.at_large.maximum_bytes = maximum_bytes
            self.at_large.closed.add_done_callback(lambda _: self._on_change())

    async def open_way(self, name: str, part: Topology) -> Publisher:
        """Declare a way's part of the topology or, with `declare = false`, look for it; an open publisher for it.

        Raises Misconfigured or BrokerUnreachable.
        """
        found = await as_it_is_there(self._connection, part)
        await _prepare(self._connection, self._settings, found)
        publisher = self._of_ways.get(name)
        if publisher is None or not publisher.is_open:
            publisher = self._of_ways[name] = await Publisher.open(self._connection, self._settings.confirm_timeout_s)
            publisher.closed.add_done_callback(partial(_explain_end, way=name))
            if part.shares_results and not found.shares_results:
                _log.info("the results queue gets all results, also those that others take", what_to_do=HOW_TO_SHARE)
        publisher.besides = {}
        if found.shares_results:
            await self._copies.open()
            publisher.besides[part.results_exchange] = Besides(part.unclaimed_exchange, self._copies.send)
        return publisher

    async def _open_copies(self) -> Publisher:
        await _prepare(self._connection, self._settings, self._topology.of_copies)
        publisher = await Publisher.open(self._connection, self._settings.confirm_timeout_s)
        publisher.closed.add_done_callback(partial(_explain_end, way="copies of results"))
        return publisher

    async def is_read(self) -> bool:
        """Whether RabbitMQ reads this connection: waits for as long as it blocks it. False when it is lost.

        A message for which no queue is bound is confirmed and leaves nothing behind. In an alarm RabbitMQ still takes
        the first message of a connection, and blocks it then: so there are two.
        """
        publisher = self.at_large
        while publisher is not None and not self._connection.lost.done():
            try:
                await publisher.publish_into_nothing(self._topology.retry_exchange)
                await publisher.publish_into_nothing(self._topology.retry_exchange)
            except NotPublished:
                if publisher.is_open:
                    continue  # not confirmed in time
                if self._connection.lost.done():
                    return False
                # Refused, so it was read. An exchange that is missing may be declared yet, a missing right may not.
                action = f"publishing to exchange {self._topology.retry_exchange}"
                error = refusal_error(publisher.closed.result(), self._connection.broker, action)
                if isinstance(error, Misconfigured) and error.reason == PERMISSION_REFUSED:
                    self.refusal = error
            return True
        return False

    async def close(self) -> None:
        """Disconnect."""
        await self._copies.close()
        await self._connection.close()


def _explain_end(closed: asyncio.Future[BaseException], **of: str) -> None:
    if (end := channel_end(closed.result())) is not None:
        _log.warning("RabbitMQ ended a channel", **of, **end)


async def _prepare(connection: Connection, settings: AmqpSettings, part: Topology) -> None:
    """Declare a part of the topology or, with `declare = false`, look for it. Raises Misconfigured."""
    for difference in await (declare if settings.declare else find_missing)(connection, part):
        _log.warning(
            "a queue is used as it is, though it differs",
            difference=difference.what,
            what_to_do="to have it as ours: once all workers have the same settings, delete it while it is empty",
        )

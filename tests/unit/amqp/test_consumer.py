"""What a consumer does with what arrives while it is paused or full, and with what it loses; on a fake channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pika
import pytest

from worker.amqp import session as session_module
from worker.amqp.consumer import Consumer
from worker.amqp.delivery import Delivery
from worker.amqp.errors import BrokerUnreachable
from worker.amqp.mark import HeaderCheck, HeaderMark
from worker.amqp.republish import probe_properties
from worker.amqp.session import ConsumingSession
from worker.amqp.topology import Lane, topology
from worker.errors import AutotagError
from worker.settings import AmqpSettings

MARK = HeaderMark(b"key")


class FakeChannel:
    """A channel that records what is settled on it."""

    is_open = True
    connection = SimpleNamespace(broker=SimpleNamespace(virtual_host="/"))

    def __init__(self) -> None:
        self.closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.raw = self
        self._cancelled: set[str] = set()
        self.prefetches: list[int] = []
        self.verbs: list[tuple[str, int]] = []

        self.on_cancel: Any = None
        self.during_consume: Callable[[str], None] = lambda _tag: None
        self.refusal: AutotagError | None = None

    def add_on_cancel_callback(self, callback: Any) -> None:
        self.on_cancel = callback

    def basic_qos(self, *, prefetch_count: int) -> None:
        self.prefetches.append(prefetch_count)

    def basic_consume(self, _queue: str, _on_message: Any, *, consumer_tag: str) -> None:
        self.during_consume(consumer_tag)

    def basic_cancel(self, _tag: str) -> None:
        """It is ended at once."""

    async def call(self, method: Any, *args: Any, action: str, **options: Any) -> None:
        method(*args, **options)
        if action.startswith("consuming") and self.refusal is not None:
            raise self.refusal

    def abandon(self) -> None:
        self.is_open = False

    def basic_ack(self, tag: int) -> None:
        self.verbs.append(("ack", tag))

    def basic_nack(self, tag: int) -> None:
        self.verbs.append(("nack", tag))

    def basic_reject(self, tag: int, *, requeue: bool) -> None:
        self.verbs.append((f"reject requeue={requeue}", tag))


class FakeReceiver:
    """Records deliveries, losses and bytes."""

    def __init__(self) -> None:
        self.is_paused = False
        self.is_full = False
        self.deliveries: list[Delivery] = []
        self.lost: list[Delivery] = []
        self.bytes = 0

    def on_delivery(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def on_lost(self, delivery: Delivery) -> None:
        self.lost.append(delivery)

    def on_bytes(self, change: int) -> None:
        self.bytes += change


class Setup:
    """A consumer on a fake channel."""

    def __init__(self) -> None:
        self.channel = FakeChannel()
        self.receiver = FakeReceiver()
        self.cancelled = 0
        self.consumer = Consumer(
            Lane.LIVE,
            self.channel,  # type: ignore[arg-type]
            HeaderCheck(MARK),
            self.receiver,
            self.on_cancelled,
        )

    def on_cancelled(self) -> None:
        self.cancelled += 1

    def arrive(self, tag: int, body: bytes = b"body", properties: pika.BasicProperties | None = None) -> None:
        method = SimpleNamespace(delivery_tag=tag, redelivered=False, exchange="images")
        self.consumer._receive(method, properties or pika.BasicProperties(), body)


async def test_what_arrives_in_a_pause_is_held_counted_and_delivered_afterwards() -> None:
    it = Setup()
    it.receiver.is_paused = True
    it.arrive(1)
    it.arrive(2)
    assert it.receiver.deliveries == []
    assert it.receiver.bytes == 8
    it.consumer.deliver_held()
    assert [each.tag for each in it.receiver.deliveries] == [1, 2]
    it.receiver.deliveries[0].ack()
    assert it.receiver.bytes == 4
    assert it.channel.verbs == [("ack", 1)]


async def test_what_is_held_goes_back_where_others_are_to_have_it() -> None:
    it = Setup()
    it.receiver.is_paused = True
    it.arrive(1)
    it.consumer.requeue_held()
    assert it.channel.verbs == [("nack", 1)]
    assert (it.receiver.bytes, it.receiver.lost, it.consumer.unsettled) == (0, [], 0)


async def test_what_arrives_while_there_is_no_room_goes_back_unseen() -> None:
    it = Setup()
    it.receiver.is_paused = it.receiver.is_full = True
    it.arrive(1)
    assert it.channel.verbs == [("nack", 1)]
    assert (it.receiver.bytes, it.consumer.unsettled) == (0, 0)


async def test_an_empty_probe_is_dropped_whatever_its_mark_and_an_event_that_claims_to_be_one_is_not() -> None:
    it = Setup()
    it.arrive(1, b"", probe_properties(MARK))
    it.arrive(2, b"", probe_properties(HeaderMark(b"of a check with another password")))
    it.arrive(3, b"an event", probe_properties(HeaderMark(b"of a publisher")))
    it.arrive(4, b"")
    assert it.channel.verbs == [("ack", 1), ("ack", 2)]
    assert [each.tag for each in it.receiver.deliveries] == [3, 4]


async def test_only_what_is_too_old_is_given_back_and_nothing_is_sent_for_it_again() -> None:
    it = Setup()
    it.arrive(1)
    it.arrive(2)
    old, young = it.receiver.deliveries
    old.received_at_s -= 100
    assert it.consumer.give_back(time.monotonic() - 50) == 1
    assert it.receiver.lost == [old]
    assert old.lost
    assert not young.lost
    young.ack()
    assert it.channel.verbs == [("nack", 1), ("ack", 2)]


async def test_when_the_channel_ends_all_in_hand_is_lost_and_an_ack_of_it_goes_nowhere() -> None:
    it = Setup()
    it.arrive(1)
    it.channel.closed.set_result(RuntimeError("gone"))
    await asyncio.sleep(0)
    (delivery,) = it.receiver.deliveries
    assert it.receiver.lost == [delivery]
    assert it.receiver.bytes == 0
    delivery.ack()
    assert it.channel.verbs == []


async def test_a_rejected_delivery_is_not_requeued() -> None:
    it = Setup()
    it.arrive(1)
    it.receiver.deliveries[0].reject()
    assert it.channel.verbs == [("reject requeue=False", 1)]


async def test_a_new_consumer_has_what_is_left_of_the_prefetch_and_room_is_reported_once_half_is_settled() -> None:
    it = Setup()
    called: list[None] = []
    for tag in range(1, 5):
        it.arrive(tag)
    assert it.consumer.room(5, lambda: called.append(None)) == 1
    assert it.consumer.room(4, lambda: called.append(None)) == 1
    for delivery in it.receiver.deliveries:
        delivery.ack()
    assert called == [None]
    assert it.consumer.room(4, lambda: None) == 4


async def test_a_consumer_that_rabbitmq_has_not_confirmed_is_given_up_with_its_channel_and_all_in_hand() -> None:
    it = Setup()
    it.arrive(1)
    it.channel.refusal = BrokerUnreachable("no answer", reason="broker_silent")
    with pytest.raises(BrokerUnreachable):
        await it.consumer.consume("queue", 4)
    assert not it.consumer.is_open
    assert it.receiver.lost == it.receiver.deliveries
    it.arrive(2)  # what RabbitMQ sends before it has read that
    assert [each.tag for each in it.receiver.deliveries] == [1]
    assert it.consumer.unsettled == 0
    assert it.channel.verbs == []


async def test_a_cancel_that_is_read_together_with_the_reply_is_noticed() -> None:
    it = Setup()
    cancel = it.channel.on_cancel
    it.channel.during_consume = lambda tag: cancel(SimpleNamespace(method=SimpleNamespace(consumer_tag=tag)))
    await it.consumer.consume("queue", 4)
    assert it.cancelled == 1
    assert not it.consumer.consuming
    it.channel.during_consume = lambda _tag: None
    await it.consumer.consume("queue", 4)
    assert it.consumer.consuming


@pytest.mark.parametrize(
    ("queue_exists", "in_hand_for_s", "lost"),
    [(True, 3600, True), (True, 5, False), (False, 3600, False)],
    ids=["a consumer timeout", "declared again by another worker", "a deleted queue"],
)
async def test_after_a_cancel_by_the_broker_what_it_took_back_is_lost_and_what_can_be_acked_is_not(
    monkeypatch: pytest.MonkeyPatch, queue_exists: bool, in_hand_for_s: float, lost: bool
) -> None:
    it = Setup()
    it.arrive(1)
    (delivery,) = it.receiver.deliveries
    delivery.received_at_s -= in_hand_for_s

    async def exists(_connection: object, _queue: str) -> bool:
        return queue_exists

    monkeypatch.setattr(session_module, "exists", exists)
    consuming = ConsumingSession(
        SimpleNamespace(),  # type: ignore[arg-type]
        AmqpSettings(),
        topology("test", (1,)),
        {Lane.LIVE: 4},
        HeaderCheck(MARK),
        it.receiver,
        gives_back=lambda: False,
        on_change=lambda: None,
        on_reconciled=lambda: None,
    )
    state = consuming._states[Lane.LIVE]
    state.consumer = it.consumer
    await consuming._judge_cancel(Lane.LIVE, state)
    assert delivery.lost is lost
    assert it.receiver.lost == ([delivery] if lost else [])

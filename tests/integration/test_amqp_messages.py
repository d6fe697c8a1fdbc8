"""Messages to and from a real broker without faults: confirms, returns, prefetch, retry, dead letters."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pika import data
from pika.adapters.asyncio_connection import AsyncioConnection
from pydantic import SecretStr

from tests.support.polling import eventually
from tests.support.serving import Serving, open_operator, serving, settings_for, topology_for
from worker.amqp.broker import Broker
from worker.amqp.connection import connected
from worker.amqp.delivery import Delivery
from worker.amqp.errors import NotConfirmed, PublishRefused, Unpublishable, Unroutable
from worker.amqp.in_hand import DEFERRALS_HEADER
from worker.amqp.topology import Lane, Topology
from worker.messages import OutgoingMessage
from worker.settings import AmqpSettings


@pytest.fixture
def settings(broker: str) -> AmqpSettings:
    return settings_for(broker)


async def publish(it: Serving, exchange: str, key: str, body: bytes = b"x", **headers: object) -> None:
    await it.broker.publish(exchange, key, body, content_type="text/plain", headers=headers, message_id="m")


async def test_an_event_is_delivered_as_it_was_published(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        before_s = time.monotonic()
        await it.publish_event("event-1", b'{"a": 1}')
        delivery = await it.next()
        assert (delivery.body, delivery.content_type, delivery.message_id) == (
            b'{"a": 1}',
            "application/json",
            "event-1",
        )
        assert delivery.headers["traceparent"] == "00-1-2-01"
        assert (delivery.lane, delivery.attempt, delivery.delivery_count) == (Lane.LIVE, 1, 0)
        assert not delivery.redelivered
        assert before_s <= delivery.received_at_s <= time.monotonic()
        delivery.ack()
        assert it.broker.state.unsettled == 0


async def test_both_lanes_are_consumed(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        await it.publish_event(lane=Lane.BULK)
        delivery = await it.next()
        assert delivery.lane is Lane.BULK
        delivery.ack()


async def test_an_empty_body_and_one_of_many_frames_arrive_whole(settings: AmqpSettings) -> None:
    large = bytes(range(256)) * 20_000  # 5 MB, some forty frames
    async with serving(settings) as it:
        for body in (b"", large):
            await it.publish_event(body=body)
            delivery = await it.next()
            assert delivery.body == body
            delivery.ack()


async def test_what_is_requeued_comes_again_marked_as_redelivered(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        await it.publish_event()
        (await it.next()).requeue()
        again = await it.next()
        assert again.redelivered
        assert again.delivery_count == 1
        assert again.attempt == 1
        again.ack()


async def test_a_delivery_is_settled_once(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        await it.publish_event()
        delivery = await it.next()
        delivery.ack()
        with pytest.raises(RuntimeError, match="settled already"):
            delivery.requeue()
        await it.publish_event("next")  # the channel still works
        (await it.next()).ack()


async def test_no_more_than_the_prefetch_is_held(settings: AmqpSettings) -> None:
    async with serving(settings, lanes={Lane.LIVE: 3}) as it:
        await asyncio.gather(*(it.publish_event(str(number)) for number in range(10)))
        held = [await it.next() for _ in range(3)]
        await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 7)
        assert it.deliveries.empty()
        assert it.broker.state.unsettled == 3
        held[1].ack()
        assert (await it.next()).message_id == "3"
        assert it.deliveries.empty()


async def test_large_messages_in_hand_stay_below_their_limit_and_the_next_is_not_read(broker: str) -> None:
    async with serving(settings_for(broker, maximum_bytes_in_hand=2_500_000)) as it:
        await asyncio.gather(*(it.publish_event(str(number), b"x" * 1_000_000) for number in range(20)))
        held = [await it.next() for _ in range(2)]
        # Until it is given up to wait for one of them to end, what RabbitMQ has sent is not read; then it goes back
        await eventually(lambda: "bytes_in_hand" in it.broker.state.pauses, "the service says that it reads no more")
        await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 18)
        assert it.deliveries.empty()
        assert it.broker.state.unsettled == 2
        for number in range(18):
            held.pop(0).ack()
            held.append(await it.next())
            assert it.broker.state.unsettled <= 2, number
        assert it.broker.state.reconnects == 0


async def test_messages_above_the_limit_of_bytes_are_taken_one_a_lane(broker: str) -> None:
    async with serving(settings_for(broker, maximum_bytes_in_hand=500_000)) as it:
        lanes = (Lane.LIVE, Lane.BULK)
        await asyncio.gather(*(it.publish_event(body=b"x" * 3_000_000, lane=lane) for lane in lanes for _ in range(5)))
        for _ in range(10):
            delivery = await it.next()
            assert len(delivery.body) == 3_000_000
            assert it.broker.state.unsettled <= 2
            delivery.ack()
        assert it.broker.state.reconnects == 0


async def test_messages_are_confirmed_side_by_side(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        await it.broker.stop_consuming("test")
        publishing = [asyncio.create_task(it.publish_event(str(number))) for number in range(500)]
        await asyncio.sleep(0)
        assert it.broker.state.unconfirmed == 500
        await asyncio.gather(*publishing)
        assert it.broker.state.unconfirmed == 0
        await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 500)


async def test_what_is_written_in_one_turn_of_the_loop_is_sent_together(
    settings: AmqpSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings) as it:
        sent: list[int] = []
        plain = AsyncioConnection._adapter_emit_data

        def counted(connection: AsyncioConnection, data: bytes) -> None:
            sent.append(len(data))
            plain(connection, data)

        monkeypatch.setattr(AsyncioConnection, "_adapter_emit_data", counted)
        publishing = [asyncio.create_task(it.publish_event(str(number))) for number in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(sent) == 1
        await asyncio.gather(*publishing)


async def test_a_result_goes_to_the_results_queue(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        result = OutgoingMessage(b"{}", "application/cloudevents+json", {"traceparent": "t"}, "id", "acme.tagged")
        await it.broker.publish_result(result)
        assert (await it.broker.depths())[it.topology.results_queue] == 1


async def test_a_message_for_which_no_queue_is_bound_is_unroutable_and_its_neighbours_are_not(
    settings: AmqpSettings,
) -> None:
    async with serving(settings) as it:
        images = it.topology.images_exchange
        outcomes = await asyncio.gather(
            *(publish(it, images, "nowhere" if number == 5 else "bulk") for number in range(10)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes].count(Unroutable) == 1
        assert isinstance(outcomes[5], Unroutable)
        assert "bind a queue" in str(outcomes[5])


async def test_a_results_queue_that_was_unbound_is_bound_again_and_gets_the_result_that_was_held(
    settings: AmqpSettings,
) -> None:
    async with serving(settings) as it, open_operator(settings) as operator:
        where = {"queue": it.topology.results_queue, "exchange": it.topology.unclaimed_exchange, "routing_key": ""}
        await operator.call("queue_unbind", **where)
        await asyncio.wait_for(
            it.broker.publish_result(OutgoingMessage(b"{}", "application/json", {}, "id", "acme.tagged")), 20
        )
        assert (await it.broker.depths())[it.topology.results_queue] == 1
        await eventually(lambda: it.broker.state.ready, "events are taken again", within_s=20)
        assert any("results_cannot_be_published" in state.pauses for state in it.states)


async def test_a_full_queue_refuses(settings: AmqpSettings) -> None:
    full = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    async with serving(settings) as it, open_operator(settings) as operator:
        queue = f"{settings.queue_prefix}.full"
        await operator.call("queue_declare", queue=queue, durable=True, arguments=full)
        outcomes = []
        for _ in range(10):  # a quorum queue may take a few more than its limit
            try:
                await publish(it, "", queue)
            except PublishRefused as refused:
                outcomes.append(refused)
        await operator.call("queue_delete", queue=queue)
    assert outcomes
    assert "full" in str(outcomes[0])


async def test_a_message_that_cannot_be_written_harms_no_other(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        bulk = (it.topology.images_exchange, "bulk")
        with pytest.raises(Unpublishable, match="cannot be written"):
            await publish(it, it.topology.results_exchange, "x" * 256)
        with pytest.raises(Unpublishable):
            await publish(it, *bulk, odd=object())
        with pytest.raises(Unpublishable):
            await publish(it, *bulk, large=1 << 70)
        await publish(it, *bulk)
        assert it.broker.state.reconnects == 0


async def test_a_message_larger_than_the_broker_takes_is_refused_by_name_and_the_next_one_at_once(
    private_broker: Any,
) -> None:
    node = private_broker(configuration="max_message_size = 100000\n")
    async with serving(settings_for(node.url)) as it:
        await it.publish_event("small")
        delivery = await it.next()
        with pytest.raises(Unpublishable, match=r"message huge has 100001 bytes.*at most 100000") as caught:
            await it.publish_event("huge", b"x" * 100_001)
        assert caught.value.reason == "message_too_large"
        await eventually(lambda: it.broker.state.unconfirmed == 0, "the publisher is there again", within_s=20)
        result = OutgoingMessage(b"x" * 100_001, "application/json", {}, "huge", "acme.tagged")
        for _ in range(2):  # the second is not even sent: the channel and all messages in flight are kept
            with pytest.raises(Unpublishable):
                await asyncio.wait_for(it.broker.publish_result(result), 20)
        await asyncio.wait_for(
            it.broker.publish_result(OutgoingMessage(b"{}", "application/json", {}, "id", "acme.tagged")), 20
        )
        await published(it, "after", b"{}")
        delivery.ack()  # the consumer's channel was never in danger
        assert (await it.next()).message_id == "after"
        assert it.broker.state.reconnects == 0


async def test_the_default_limit_of_rabbitmq_4_is_learned_from_its_refusal(settings: AmqpSettings) -> None:
    body = b"x" * ((16 << 20) + 1)
    async with serving(settings) as it:
        if str(it.broker.state.version) < "RabbitMQ 4":  # its default is 128 MiB
            await it.publish_event("huge", body)
            (await it.next()).ack()
            return
        for _ in range(2):  # refused by RabbitMQ, then by us
            with pytest.raises(Unpublishable, match=r"16777217 bytes.*at most 16777216"):
                await published(it, "huge", body)
        await published(it, "after", b"{}")
        (await it.next()).ack()


async def published(it: Serving, message_id: str, body: bytes) -> None:
    """Publish an event, again where the channel that a refusal has closed is not open again yet."""
    for _ in range(200):
        try:
            return await it.publish_event(message_id, body)
        except NotConfirmed:
            await asyncio.sleep(0.1)
    pytest.fail(f"{message_id} could not be published")


async def test_nothing_is_published_without_a_connection(settings: AmqpSettings) -> None:
    async with serving(settings, start=False) as it:
        with pytest.raises(NotConfirmed, match="no connection yet"):
            await it.publish_event()


async def test_a_retried_event_comes_back_after_its_delay_as_the_next_attempt(settings: AmqpSettings) -> None:
    topology = topology_for(settings, (0.3, 1))
    async with serving(settings, topology=topology) as it:
        await it.publish_event("event-1", b"body", lane=Lane.BULK)
        first = await it.next()
        began_s = time.monotonic()
        assert await it.broker.retry_later(first, headers={"x-autotag-answers": "[]"}) == 0.3
        first.ack()
        second = await it.next()
        assert time.monotonic() - began_s >= 0.3
        assert (second.attempt, second.lane, second.body, second.message_id) == (2, Lane.BULK, b"body", "event-1")
        assert second.headers["traceparent"] == "00-1-2-01"
        assert second.headers["x-autotag-answers"] == "[]"
        began_s = time.monotonic()
        assert await it.broker.retry_later(second) == 1
        second.ack()
        third = await it.next()
        assert time.monotonic() - began_s >= 1
        assert third.attempt == 3
        # What only waits for its turn comes back as soon as it can
        assert await it.broker.retry_later(third, counted=False) == 0.3
        third.ack()
        assert (await it.next()).attempt == 3


async def test_a_deferred_event_comes_back_when_it_is_due_and_not_after_the_queues_delay(
    settings: AmqpSettings,
) -> None:
    topology = topology_for(settings, (100, 600))
    async with serving(settings, topology=topology) as it:
        for name in ("soon", "later"):
            await it.publish_event(name)
        began_s = time.monotonic()
        for after_s in (0.3, 1.2):
            delivery = await it.next()
            headers = {DEFERRALS_HEADER: 1}
            assert await it.broker.retry_later(delivery, exactly_s=after_s, counted=False, headers=headers) == 100
            delivery.ack()
        for name, after_s in (("soon", 0.3), ("later", 1.2)):
            back = await it.next(within_s=60)
            assert time.monotonic() - began_s >= after_s
            assert (back.message_id, back.attempt, back.headers[DEFERRALS_HEADER]) == (name, 1, 1)
            assert back.properties.expiration is None
            back.ack()


async def test_another_worker_believes_what_a_worker_with_the_same_key_wrote_and_one_with_another_key_does_not(
    settings: AmqpSettings,
) -> None:
    topology = topology_for(settings, (0.2, 1))
    async with serving(settings, topology=topology) as it:
        # Given an event that one worker retries, which takes none itself by the time it comes back
        await it.publish_event("event-1", b"body")
        delivery = await it.next()
        await it.broker.stop_consuming("test")
        await it.broker.retry_later(delivery, headers={"x-autotag-answers": "[]"})
        delivery.ack()
        # When a worker with the same settings takes it
        async with another_worker(settings, topology) as (same, deliveries):
            second = await asyncio.wait_for(deliveries.get(), 20)
            # Then it is the second attempt, with what was answered
            assert (second.attempt, second.headers["x-autotag-answers"]) == (2, "[]")
            assert same.state.unmarked == 0
            await same.retry_later(second)
            second.ack()
        # And to a worker with another key it is a new event, whose headers were dropped
        stranger = settings.model_copy(update={"header_key": SecretStr("k" * 32)})
        async with another_worker(stranger, topology) as (other, deliveries):
            third = await asyncio.wait_for(deliveries.get(), 20)
            assert third.attempt == 1
            assert not [name for name in third.headers if name.startswith("x-autotag-")]
            assert other.state.unmarked == 1
            third.ack()


@asynccontextmanager
async def another_worker(
    settings: AmqpSettings, topology: Topology
) -> AsyncIterator[tuple[Broker, asyncio.Queue[Delivery]]]:
    deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
    broker = Broker(settings, topology, deliveries.put_nowait)
    try:
        await asyncio.wait_for(broker.start(), 20)
        yield broker, deliveries
    finally:
        await broker.close()


async def test_headers_of_ours_that_a_publisher_wrote_are_dropped_on_arrival(settings: AmqpSettings) -> None:
    forged: dict[str, object] = {
        "x-autotag-attempt": 7,
        "x-autotag-unreadable-properties": "none of it",
        "x-autotag-mark": "0" * 64,
    }
    async with serving(settings) as it:
        await publish(it, it.topology.images_exchange, "live", b"x", **forged, traceparent="t")
        delivery = await it.next()
        assert (delivery.attempt, dict(delivery.headers)) == (1, {"traceparent": "t"})
        assert it.broker.state.unmarked == 1
        delivery.ack()


async def test_a_dead_letter_carries_the_reason_and_the_message(settings: AmqpSettings) -> None:
    async with serving(settings) as it, open_operator(settings) as operator:
        await it.publish_event("event-1", b"body")
        delivery = await it.next()
        await it.broker.dead_letter(delivery, "image_truncated", "w" * 5000, asset="42", instance="acme")
        delivery.ack()
        channel = await operator.connection.channel()
        got: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel.raw.basic_get(it.topology.dead_letters_queue, lambda *letter: got.set_result(letter))
        _, _, properties, body = await got
        headers = properties.headers
        assert body == b"body"
        assert (properties.message_id, properties.content_type) == ("event-1", "application/json")
        assert headers["traceparent"] == "00-1-2-01"
        assert headers["x-autotag-reason"] == "image_truncated"
        assert headers["x-autotag-message"] == "w" * 1000
        assert (headers["x-autotag-asset"], headers["x-autotag-instance"]) == ("42", "acme")
        assert (headers["x-autotag-attempt"], headers["x-autotag-lane"]) == (1, "live")
        assert headers["x-autotag-failed-at"].endswith("+00:00")


async def test_properties_of_other_programs_that_the_broker_would_refuse_from_us_do_no_harm(
    settings: AmqpSettings,
) -> None:
    user = settings.url.get_secret_value().split("//")[1].split(":")[0]
    async with serving(settings) as it, open_operator(settings) as operator:
        odd = {"CC": ["bulk"], "x-death": "nonsense", "x-autotag-attempt": "many"}
        await operator.publish(
            it.topology.images_exchange, "live", user_id=user, expiration="60000", headers=odd, priority=1
        )
        two = [await it.next(), await it.next()]  # one more in the bulk lane, by CC
        live = next(delivery for delivery in two if delivery.lane is Lane.LIVE)
        assert live.attempt == 1
        assert live.delivery_count == 0
        await it.broker.retry_later(live)
        for delivery in two:
            delivery.ack()
        back = await it.next()
        assert back.lane is Lane.LIVE
        assert "CC" not in back.headers
        assert back.properties.user_id is None
        back.ack()


async def test_headers_that_pika_cannot_read_cost_neither_the_connection_nor_the_message(
    settings: AmqpSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(settings) as it:
        await it.publish_event("before")
        before = await it.next()
        with monkeypatch.context() as patch:  # pika cannot write such a header either

            def milliseconds(pieces: list[bytes], value: object) -> int:
                pieces.append(struct.pack(">cQ", b"T", 1_700_000_000_000))
                return 9

            patch.setattr(data, "encode_value", milliseconds)
            await publish(it, it.topology.images_exchange, "live", b"poisoned", sent_at="now")
        poisoned = await it.next()
        assert poisoned.body == b"poisoned"
        assert "year" in poisoned.headers["x-autotag-unreadable-properties"]
        poisoned.ack()
        before.ack()
        assert it.broker.state.reconnects == 0


async def test_a_handler_that_raises_gives_the_delivery_back(settings: AmqpSettings) -> None:
    async with serving(settings) as it:
        put = it.deliveries.put_nowait
        calls = []

        def raise_once(delivery: Any) -> None:
            calls.append(delivery)
            if len(calls) == 1:
                raise KeyError("oops")
            put(delivery)

        it.broker.on_delivery = raise_once
        await it.publish_event()
        again = await it.next()
        assert again.redelivered
        again.ack()


async def test_while_stopped_nothing_is_delivered_and_nothing_is_lost(settings: AmqpSettings) -> None:
    async with serving(settings, lanes={Lane.LIVE: 5}) as it:
        await asyncio.gather(*(it.publish_event(str(number)) for number in range(20)))
        in_hand = [await it.next() for _ in range(5)]
        await it.broker.stop_consuming("no provider")
        await it.broker.stop_consuming("operator")
        assert not it.broker.state.ready
        assert it.broker.state.paused == {"no provider", "operator"}
        assert it.broker.state.connected
        in_hand[0].ack()  # what is in hand can be settled
        for delivery in in_hand[1:]:
            delivery.requeue()
        await it.broker.resume_consuming("operator")
        assert not it.broker.state.ready  # the other reason stands
        await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 19)
        assert it.deliveries.empty()
        await it.broker.resume_consuming("no provider")
        assert it.broker.state.ready
        seen = set()
        while len(seen) < 19:
            delivery = await it.next()
            seen.add(delivery.message_id)
            delivery.ack()


async def test_deliveries_that_arrive_between_the_pause_and_the_end_of_consuming_go_back(
    settings: AmqpSettings,
) -> None:
    async with serving(settings, lanes={Lane.LIVE: 50}) as it:
        publishing = [asyncio.create_task(it.publish_event(str(number))) for number in range(300)]
        first = await it.next()
        stopping = asyncio.create_task(it.broker.stop_consuming("now"))
        await asyncio.sleep(0)
        known = it.deliveries.qsize()
        await stopping
        await asyncio.gather(*publishing)
        assert it.deliveries.qsize() == known
        in_hand = [first, *(it.deliveries.get_nowait() for _ in range(known))]
        for delivery in in_hand:
            delivery.requeue()
        await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 300)


async def test_a_connection_can_be_opened_for_one_command(settings: AmqpSettings) -> None:
    async with connected(settings, "autotag-test") as connection:
        channel = await connection.channel()
        assert channel.is_open
    assert not channel.is_open

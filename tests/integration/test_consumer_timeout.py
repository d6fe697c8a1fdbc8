"""RabbitMQ 4.3's consumer timeout cancels the consumer and leaves the channel open: simulated before a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pika
import pytest
from pika import frame as frames

from tests.support.consumer_timeout import ConsumerTimeoutProxy
from tests.support.polling import eventually
from tests.support.serving import open_operator, serving, settings_for
from worker.amqp.topology import Lane


@pytest.fixture
def proxy(broker: str) -> Iterator[ConsumerTimeoutProxy]:
    with ConsumerTimeoutProxy(pika.URLParameters(broker).port) as proxy:
        yield proxy


@pytest.fixture
def url(broker: str, proxy: ConsumerTimeoutProxy) -> str:
    """The broker behind the proxy."""
    parameters = pika.URLParameters(broker)
    return broker.replace(f":{parameters.port}/", f":{proxy.port}/")


async def test_the_notice_is_the_one_that_rabbitmq_itself_sends_when_a_queue_is_deleted(
    url: str, proxy: ConsumerTimeoutProxy
) -> None:
    settings = settings_for(url)
    async with serving(settings) as it, open_operator(settings) as operator:
        await operator.call("queue_delete", queue=it.topology.lane_queue(Lane.LIVE))
        await eventually(lambda: len(proxy.cancels) == 1, "RabbitMQ's own notice")
        await eventually(lambda: it.broker.state.ready, "both lanes are consumed again", 20)
        await asyncio.to_thread(proxy.time_out, "live")
        own, ours = (frames.decode_frame(raw)[1] for raw in proxy.cancels)
        assert {own.method.consumer_tag[:5], ours.method.consumer_tag[:5]} == {"live."}
        ours.method.consumer_tag = own.method.consumer_tag
        assert ours.marshal() == own.marshal()


async def test_what_a_timed_out_consumer_held_comes_again_and_its_late_answer_harms_nothing(
    url: str, proxy: ConsumerTimeoutProxy
) -> None:
    async with serving(settings_for(url)) as it:
        await it.publish_event("held too long")
        late = await it.next()

        assert await asyncio.to_thread(proxy.time_out, "live") == 1

        again = await it.next()
        assert (again.message_id, again.redelivered) == ("held too long", True)
        late.ack()
        await it.publish_event("next")
        following = await it.next()
        assert following.message_id == "next"
        again.ack()
        following.ack()
        await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 0)
        assert proxy.late_answers == 1
        assert it.broker.state.reconnects == 0


async def test_deliveries_that_were_on_their_way_to_a_timed_out_consumer_are_returned_too(
    url: str, proxy: ConsumerTimeoutProxy
) -> None:
    async with serving(settings_for(url), lanes={Lane.LIVE: 5}) as it:
        wanted = {str(number) for number in range(200)}
        await asyncio.gather(*(it.publish_event(name, b"x" * 20_000) for name in wanted))
        acknowledged: set[str | None] = set()
        while not wanted <= acknowledged:
            delivery = await it.next()
            acknowledged.add(delivery.message_id)
            delivery.ack()
            if len(acknowledged) % 40 == 20 and len(proxy.cancels) < len(acknowledged) // 40 + 1:
                await asyncio.to_thread(proxy.time_out, "live")
        await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 0)
        assert len(proxy.cancels) == 5
        assert it.broker.state.reconnects == 0

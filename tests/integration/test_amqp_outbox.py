"""What cannot be published is held until it can: full queues, missing bindings and rights, alarms, lost connections.

The node is private to this module: its alarms and its connections are the tests' own.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import pika
import pytest
from pydantic import SecretStr
from rabbitmq_node import PrivateBroker
from structlog.testing import capture_logs

from tests.support.polling import eventually
from tests.support.serving import Operator, Serving, open_operator, serving, settings_for, topology_for
from worker.amqp.bindings import find_bindings
from worker.amqp.dead_letters import DeadLetters, Selection
from worker.amqp.declare import declare
from worker.amqp.delivery import Delivery
from worker.amqp.errors import PublishRefused, Unpublishable, Unroutable
from worker.amqp.republish import LEFT_OUT_HEADER, REASON_HEADER
from worker.amqp.topology import Lane
from worker.messages import OutgoingMessage


def result(message_id: str = "result", key: str = "acme.tagged", body: bytes = b"{}") -> OutgoingMessage:
    return OutgoingMessage(body, "application/json", {}, message_id, key)


async def ready(it: Serving) -> None:
    await eventually(lambda: it.broker.state.ready, "events are taken", within_s=40)


async def shut(it: Serving, reason: str) -> None:
    """Wait until nothing is consumed, for this reason."""
    await eventually(
        lambda: reason in it.broker.state.pauses and not it.broker.state.lanes, f"paused: {reason}", within_s=20
    )


async def full_results(operator: Operator, it: Serving) -> None:
    """Declare a results queue that refuses what is over its limit, and fill it."""
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    await operator.call("queue_declare", queue=it.topology.results_queue, durable=True, arguments=arguments)

    async def fill() -> None:
        for _ in range(20):  # a quorum queue may take a few more than its limit
            await operator.publish("", it.topology.results_queue)

    with pytest.raises(PublishRefused):
        await fill()


async def test_a_full_results_queue_pauses_and_one_held_result_finds_out_when_it_has_room(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with open_operator(settings) as operator, serving(settings, start=False) as it:
        await full_results(operator, it)
        await asyncio.wait_for(it.broker.start(), 20)
        publishing = [asyncio.create_task(it.broker.publish_result(result(str(number)))) for number in range(20)]
        await shut(it, "results_cannot_be_published")
        await asyncio.gather(*(it.publish_event(str(number)) for number in range(10)))
        assert it.deliveries.empty()
        assert not all(task.done() for task in publishing)
        assert it.broker.state.pauses["results_cannot_be_published"].message.count("full") == 1
        # When results are taken out
        taking = asyncio.create_task(take_all(operator, it.topology.results_queue, 21))
        await asyncio.wait_for(asyncio.gather(*publishing), 60)
        assert await taking == {"of-the-operator", *(str(number) for number in range(20))}
        await ready(it)
        assert {(await it.next()).message_id for _ in range(10)} == {str(number) for number in range(10)}
        assert it.broker.state.reconnects == 0


async def take_all(operator: Operator, queue: str, number: int) -> set[str]:
    """Take messages out of a queue until so many different ones have come; their ids."""
    found: set[str] = set()
    channel = await operator.connection.channel()

    def on_message(_channel: object, method: Any, properties: Any, _body: bytes) -> None:
        found.add(properties.message_id)
        channel.raw.basic_ack(method.delivery_tag)

    await channel.call(channel.raw.basic_consume, queue, on_message, action="taking messages")
    await eventually(lambda: len(found) == number, f"{number} messages", within_s=60)
    return found


async def test_a_result_whose_event_was_given_up_still_finds_out_when_the_way_is_free(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with open_operator(settings) as operator, serving(settings) as it:
        where = {"queue": it.topology.results_queue, "exchange": it.topology.unclaimed_exchange}
        node.ctl("add_user", "no-results", "secret")
        await operator.call("queue_unbind", **where, routing_key="")
        closed = settings_for(node.url, declare=False, queue_prefix=settings.queue_prefix)
        async with watching(closed, it) as other:
            publishing = asyncio.create_task(other.broker.publish_result(result()))
            await shut(other, "results_cannot_be_published")
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            assert other.broker.state.lanes == frozenset()
            await operator.call("queue_bind", **where, routing_key="")
            await ready(other)
            assert (await other.broker.depths())[it.topology.results_queue] == 1


def watching(settings: Any, it: Serving) -> Any:
    """A second broker on the same queues; the first one deletes them."""
    return serving(settings, topology=it.topology)


async def test_a_single_key_without_a_queue_is_its_own_fault_and_nobody_waits_for_it(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with open_operator(settings) as operator, serving(settings) as first:
        unclaimed = {"queue": first.topology.results_queue, "exchange": first.topology.unclaimed_exchange}
        where = {"queue": first.topology.results_queue, "exchange": first.topology.results_exchange}
        await operator.call("queue_unbind", **unclaimed, routing_key="")
        await operator.call("queue_bind", **where, routing_key="acme.*")
        async with watching(settings_for(node.url, declare=False, queue_prefix=settings.queue_prefix), first) as it:
            await it.broker.publish_result(result())
            for _ in range(3):
                with pytest.raises(Unroutable):
                    await asyncio.wait_for(it.broker.publish_result(result(key="other.tagged")), 40)
            assert it.broker.state.ready
            assert not any(state.pauses for state in it.states)


async def test_of_several_keys_that_are_held_the_one_that_has_a_queue_opens_the_way(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with open_operator(settings) as operator, serving(settings) as first:
        unclaimed = {"queue": first.topology.results_queue, "exchange": first.topology.unclaimed_exchange}
        where = {"queue": first.topology.results_queue, "exchange": first.topology.results_exchange}
        await operator.call("queue_unbind", **unclaimed, routing_key="")
        async with watching(settings_for(node.url, declare=False, queue_prefix=settings.queue_prefix), first) as it:
            other = asyncio.create_task(it.broker.publish_result(result(key="other.tagged")))
            await shut(it, "results_cannot_be_published")
            acme = asyncio.create_task(it.broker.publish_result(result(key="acme.tagged")))
            await operator.call("queue_bind", **where, routing_key="acme.*")
            await asyncio.wait_for(acme, 20)
            with pytest.raises(Unroutable):
                await asyncio.wait_for(other, 20)
            await ready(it)


async def test_a_missing_retry_binding_is_gone_round_by_another_delay_if_there_is_one(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with open_operator(settings) as operator, serving(settings) as first:
        topology = first.topology
        key = topology.retry_key(Lane.LIVE, 0.2)
        queue = topology.retry_queue(Lane.LIVE, 0.2)
        where = {"queue": queue, "exchange": topology.retry_exchange, "routing_key": key}
        await first.broker.stop_consuming("the test")
        closed = settings_for(node.url, declare=False, queue_prefix=settings.queue_prefix)
        async with watching(closed, first) as it:
            # Nothing was confirmed yet, so the whole way is shut; and free again with the binding
            await operator.call("queue_unbind", **where)
            await it.publish_event()
            delivery = await it.next()
            retrying = asyncio.create_task(it.broker.retry_later(delivery))
            await shut(it, "retries_cannot_be_published")
            await operator.call("queue_bind", **where)
            assert await asyncio.wait_for(retrying, 20) == 0.2
            delivery.ack()
            # With another delay's key confirmed, that delay is used instead
            again = await it.next()
            assert await it.broker.retry_later(again) == 1
            again.ack()
            await operator.call("queue_unbind", **where)
            third = await it.next()
            third.properties.headers.pop("x-autotag-attempt")
            await asyncio.wait_for(it.broker.retry_later(third), 20)


async def test_retries_are_probed_without_an_event_and_no_worker_sees_the_probe(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with open_operator(settings) as operator, serving(settings) as first:
        await first.broker.stop_consuming("the test")
        queue = first.topology.retry_queue(Lane.LIVE, 0.2)
        where = {"queue": queue, "exchange": first.topology.retry_exchange, "routing_key": "live.200ms"}
        closed = settings_for(node.url, declare=False, queue_prefix=settings.queue_prefix)
        async with watching(closed, first) as it:
            await operator.call("queue_unbind", **where)
            await it.publish_event()
            retrying = asyncio.create_task(it.broker.retry_later(await it.next()))
            await shut(it, "retries_cannot_be_published")
            retrying.cancel()  # its event was lost, and must not be published late: it comes again by itself
            await asyncio.gather(retrying, return_exceptions=True)
            await operator.call("queue_bind", **where)
            await ready(it)
            await it.depth_becomes(queue, 0)
            await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 0)
            assert it.deliveries.empty()
            assert (await it.broker.depths())[it.topology.dead_letters_queue] == 0


async def test_dead_letters_are_probed_without_a_letter_and_no_operator_sees_the_probe(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with open_operator(settings) as operator, serving(settings) as first:
        queue = first.topology.dead_letters_queue
        await operator.publish("", queue)
        where = {"queue": queue, "exchange": first.topology.dead_exchange, "routing_key": ""}
        await first.broker.stop_consuming("the test")
        closed = settings_for(node.url, declare=False, queue_prefix=settings.queue_prefix)
        async with watching(closed, first) as it:
            await operator.call("queue_unbind", **where)
            await it.publish_event()
            dead_lettering = asyncio.create_task(it.broker.dead_letter(await it.next(), "unreadable", "no event"))
            await shut(it, "dead_letters_cannot_be_published")
            dead_lettering.cancel()
            await asyncio.gather(dead_lettering, return_exceptions=True)
            # While it cannot be published, no event is taken to find that out
            looks: list[bool] = []

            def look() -> bool:
                looks.append(it.broker.state.ready or bool(it.broker.state.lanes))
                return len(looks) == 200

            await eventually(look, "it was looked at often", within_s=60)
            assert not any(looks)
            await operator.call("queue_bind", **where)
            await ready(it)
            letters = await DeadLetters(settings, it.topology).browse(Selection())
            assert [letter.key for letter in letters] == ["of-the-operator"]
            await it.depth_becomes(queue, 1)


async def test_in_an_alarm_acks_and_cancels_go_on_and_nothing_in_hand_is_lost(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url, blocked_timeout_s=1)) as it:
        await asyncio.gather(*(it.publish_event(str(number)) for number in range(3)))
        in_hand = [await it.next() for _ in range(3)]
        await asyncio.to_thread(node.set_memory_alarm, True)
        publishing = [asyncio.create_task(it.broker.publish_result(result(str(number)))) for number in range(3)]
        await shut(it, "broker_blocked")
        in_hand[0].ack()
        assert (await it.broker.depths())[it.topology.lane_queue(Lane.LIVE)] == 0
        # The publishing connection is given up again and again; the deliveries stay ours
        await eventually(lambda: it.broker.state.reconnects >= 2, "it has reconnected", within_s=20)
        assert it.lost == []
        assert it.broker.state.unsettled == 2
        assert it.broker.state.lanes == frozenset()
        await asyncio.to_thread(node.set_memory_alarm, False)
        await asyncio.wait_for(asyncio.gather(*publishing), 40)
        await ready(it)
        assert not it.broker.state.pauses


async def test_with_the_rights_that_the_documentation_gives_an_alarm_is_noticed_after_a_reconnect_too(
    node: PrivateBroker,
) -> None:
    node.ctl("add_user", "narrow", "secret")
    node.ctl("set_permissions", "narrow", *[r"^test-.*\."] * 3)
    async with serving(settings_for(node.url_of("/", "narrow", "secret"))) as it:
        await asyncio.to_thread(node.set_memory_alarm, True)
        node.close_connections()
        await shut(it, "broker_blocked")
        assert it.deliveries.empty()
        await asyncio.to_thread(node.set_memory_alarm, False)
        await ready(it)
        assert "ACCESS_REFUSED" not in node.log


async def test_lost_connections_leave_no_delivery_in_hand_that_is_not_ours(node: PrivateBroker) -> None:
    number = 4
    async with serving(settings_for(node.url, reconnect_max_s=0.1), lanes={Lane.LIVE: number}) as it:
        await asyncio.gather(*(it.publish_event(str(each)) for each in range(number)))
        for _ in range(10):
            in_hand = [await it.next() for _ in range(number)]
            assert it.broker.state.unsettled == number
            node.close_connections()
            await eventually(lambda: len(it.lost) == number, "all are lost", within_s=20)
            it.lost.clear()
            assert all(delivery.lost for delivery in in_hand)
            in_hand[0].ack()  # sent nowhere: the delivery with its tag on the next channel is another


async def test_what_is_too_old_goes_back_once_and_stays_in_its_queue_while_nothing_can_be_published(
    node: PrivateBroker,
) -> None:
    settings = settings_for(node.url, hold_s=1)
    async with open_operator(settings) as operator, serving(settings, start=False) as it:
        await full_results(operator, it)
        await asyncio.wait_for(it.broker.start(), 20)
        await asyncio.gather(*(it.publish_event(str(number)) for number in range(5)))
        in_hand = [await it.next() for _ in range(5)]
        publishing = [asyncio.create_task(it.broker.publish_result(result(str(number)))) for number in range(5)]
        await shut(it, "results_cannot_be_published")
        await eventually(lambda: len(it.lost) == 5, "all go back", within_s=20)
        assert all(delivery.settled and delivery.lost for delivery in in_hand)
        for task in publishing:
            task.cancel()
        await it.depth_becomes(it.topology.lane_queue(Lane.LIVE), 5)
        time_s = time.monotonic()
        await eventually(lambda: time.monotonic() - time_s > 3, "three times as long has passed", within_s=10)
        assert it.deliveries.empty()
        assert (await it.broker.depths())[it.topology.lane_queue(Lane.LIVE)] == 5
        taking = asyncio.create_task(take_all(operator, it.topology.results_queue, 2))
        again = [await it.next(within_s=60) for _ in range(5)]
        assert [delivery.delivery_count for delivery in again] == [1] * 5
        taking.cancel()


async def test_a_dead_letter_that_is_too_large_is_moved_by_rabbitmq_or_kept_without_its_image(
    node: PrivateBroker,
) -> None:
    settings = settings_for(node.url)
    body = b'{"data": {"asset_id": "a", "content": {"base64": "' + b"A" * 200_000 + b'"}}}'
    async with serving(settings) as first:
        await first.broker.stop_consuming("the limit is lowered first")
        await first.publish_event("large", body)
        limit_messages(node, 100_000)
        try:
            async with serving(settings) as it:
                delivery = await it.next()
                assert it.broker.can_reject(Lane.LIVE)
                with pytest.raises(Unpublishable):
                    await it.broker.dead_letter(delivery, "message_too_large", "too large")
                delivery.reject()
                await it.depth_becomes(it.topology.dead_letters_queue, 1)
                letter = await take_letter(it)
                assert letter.body == body
                assert letter.properties.headers["x-death"][0]["reason"] == "rejected"
                assert "set aside whole" in letter.message
                await ready(it)
                # Where the topology is an administrator's, nobody knows where a rejected message goes
                it.broker._settings = settings.model_copy(update={"declare": False})
                assert not it.broker.can_reject(Lane.LIVE)
                await asyncio.wait_for(it.broker.dead_letter(delivery, "message_too_large", "too large", asset="a"), 20)
                await it.depth_becomes(it.topology.dead_letters_queue, 1)
                replayed = await DeadLetters(settings, it.topology).replay(Selection())
                assert (replayed.number, replayed.without_image) == (0, ("large",))
                letter = await take_letter(it)
                assert letter.body == b'{"data": {"asset_id": "a", "content": {}}}'
                assert letter.properties.headers[REASON_HEADER] == "message_too_large"
                digest = hashlib.sha256(body).hexdigest()
                assert letter.properties.headers[LEFT_OUT_HEADER] == f"{len(body)} bytes, SHA-256 {digest}"
        finally:
            limit_messages(node, 134_217_728)


def limit_messages(node: PrivateBroker, size_bytes: int) -> None:
    """Set RabbitMQ's `max_message_size`: 3.x reads it when a channel is opened; 4.x at every message, elsewhere."""
    node.eval(f"application:set_env(rabbit, max_message_size, {size_bytes})")
    node.eval(f"persistent_term:put(max_message_size, {size_bytes})")


async def take_letter(it: Serving) -> Any:
    """The next dead letter."""
    queue = DeadLetters(it.settings, it.topology)
    (letter,) = await queue.browse(Selection())
    shown = await queue.show(letter.key)
    assert await queue.purge(Selection()) == 1
    return shown


async def test_headers_that_can_be_read_and_not_written_again_cost_the_dead_letter_nothing_but_themselves(
    node: PrivateBroker,
) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    async with serving(settings_for(node.url)) as it:
        properties = pika.BasicProperties(message_id="deep", content_type="text/plain", headers={"deep": deep})
        delivery = Delivery(b"{}", properties, Lane.LIVE, 1, False, 0.0, None)  # type: ignore[arg-type]
        await asyncio.wait_for(it.broker.dead_letter(delivery, "unreadable", "no event"), 20)
        await asyncio.wait_for(it.broker.retry_later(delivery), 20)
        await it.depth_becomes(it.topology.dead_letters_queue, 1)
        letter = await take_letter(it)
        assert (letter.key, letter.reason) == ("deep", "unreadable")


async def test_a_queue_that_differs_harmlessly_is_used_as_it_is(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    topology = topology_for(settings)
    live = next(queue for queue in topology.queues if queue.name == topology.lane_queue(Lane.LIVE))
    other = dict(live.arguments) | {"x-delivery-limit": 7, "x-max-length": 1000}
    async with open_operator(settings) as operator:
        await operator.call("queue_declare", queue=live.name, durable=True, arguments=other)
        differences = await declare(operator.connection, topology)
        assert {each.argument for each in differences} == {"x-delivery-limit", "x-max-length"}
        assert "ours would be 20, the one there has 7" in differences[0].what + differences[1].what
    async with serving(settings, topology=topology) as it:
        await it.publish_event()
        (await it.next()).ack()


async def test_a_consumer_timeout_is_explained_and_what_was_in_hand_is_lost_and_comes_again(
    node: PrivateBroker,
) -> None:
    node.eval("application:set_env(rabbit, consumer_timeout, 500)")
    node.eval("application:set_env(rabbit, channel_tick_interval, 100)")
    try:
        with capture_logs() as log:
            async with serving(settings_for(node.url)) as it:
                await it.publish_event()
                late = await it.next()
                again = await it.next()
                assert it.lost == [late]
                again.ack()
                ends = [entry for entry in log if entry["event"] == "RabbitMQ ended a channel"]
        assert [(end["reason"], end["lane"]) for end in ends] == [("consumer_timeout", "live")]
        assert "amqp.hold_s" in ends[0]["what_to_do"]
    finally:
        node.eval("application:set_env(rabbit, consumer_timeout, 1800000)")
        node.eval("application:set_env(rabbit, channel_tick_interval, 60000)")


async def test_a_missing_binding_is_found_and_looking_for_it_leaves_nothing_behind(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with open_operator(settings) as operator, serving(settings) as it:
        topology = it.topology
        found = await find_bindings(operator.connection, settings, topology)
        assert (found.missing, found.unknown) == ((), ())
        for queue in topology.queues:
            await it.depth_becomes(queue.name, 0)
        for binding in topology.bindings:
            where = {"queue": binding.queue, "exchange": binding.exchange, "routing_key": binding.routing_key}
            await operator.call("queue_unbind", **where)
        found = await find_bindings(operator.connection, settings, topology)
        assert found.missing == topology.bindings
        assert it.deliveries.empty()
        # Nor does one with another key cost a worker an event, or an operator a letter
        await declare(operator.connection, topology)
        other = settings.model_copy(update={"header_key": SecretStr("another key of at least so many characters")})
        found = await find_bindings(operator.connection, other, topology)
        assert (found.missing, found.unknown) == ((), ())
        for queue in topology.queues:
            await it.depth_becomes(queue.name, 0)
        assert it.deliveries.empty()
        # A queue in use is left alone
        await operator.publish("", topology.results_queue)
        found = await find_bindings(operator.connection, settings, topology)
        assert {binding.queue for binding in found.unknown} == {topology.results_queue}
        await operator.call("queue_purge", queue=topology.results_queue)


async def test_how_many_consumers_others_have(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with serving(settings) as it:

        async def others() -> dict[Lane, int]:
            return {lane: level.consumers for lane, level in (await it.broker.lane_levels()).items()}

        assert await others() == {Lane.LIVE: 0, Lane.BULK: 0}
        async with serving(settings, topology=it.topology, lanes={Lane.LIVE: 1}):
            assert await others() == {Lane.LIVE: 1, Lane.BULK: 0}
            await it.broker.stop_consuming("the test")
            assert await others() == {Lane.LIVE: 1, Lane.BULK: 0}


async def test_looking_at_queues_that_do_not_answer_leaves_no_channel_behind(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with serving(settings) as it:

        def channels() -> int:
            return len(node.ctl("list_channels", "pid", "--silent").split())

        await eventually(
            lambda: channels() == 7, "a channel for each lane and way, for copies, and one more", within_s=20
        )
        for _ in range(5):
            looking = asyncio.create_task(it.broker.depths())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        await it.broker.depths()
        await eventually(lambda: channels() == 7, "no more than before", within_s=20)

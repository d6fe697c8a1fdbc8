"""RabbitMQ is killed, frozen, blocked, or closes our channels: consuming resumes, no delivery is settled twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from rabbitmq_node import PrivateBroker
from structlog.testing import capture_logs

from tests.support.polling import eventually
from tests.support.serving import Serving, open_operator, serving, settings_for
from worker.amqp.errors import NotConfirmed
from worker.amqp.state import BrokerPhase
from worker.amqp.topology import Lane
from worker.messages import OutgoingMessage


async def consuming_again(it: Serving) -> None:
    await eventually(lambda: it.broker.state.ready, "consuming again")


async def test_a_killed_broker_is_consumed_from_again_within_ten_seconds_of_its_return(
    private_broker: Callable[..., PrivateBroker],
) -> None:
    node = private_broker()  # of its own: if it does not come back well, no other test fails with this one
    async with serving(settings_for(node.url)) as it:
        await it.publish_event("kept")
        in_hand = await it.next()
        await asyncio.to_thread(node.flush_metadata)
        publishing = [asyncio.create_task(it.publish_event(str(number))) for number in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(node.kill)
        outcomes = await asyncio.wait_for(asyncio.gather(*publishing, return_exceptions=True), 20)
        confirmed = [str(n) for n, outcome in enumerate(outcomes) if outcome is None]
        assert all(outcome is None or isinstance(outcome, NotConfirmed) for outcome in outcomes)
        await eventually(lambda: it.broker.state.phase is BrokerPhase.WAITING, "the loss is noticed", within_s=20)
        assert not it.broker.state.ready
        assert it.broker.state.unsettled == 0
        with pytest.raises(NotConfirmed):
            await it.publish_event("while it is away")
        await asyncio.sleep(2)  # the pauses between attempts grow meanwhile
        await asyncio.to_thread(node.start)
        back_at_s = time.monotonic()
        await consuming_again(it)
        assert time.monotonic() - back_at_s < 10
        assert it.broker.state.reconnects == 1
        assert it.broker.state.last_error is None
        in_hand.ack()  # of the old connection: must not settle the delivery with the same tag on the new one
        wanted = {"kept", *confirmed}
        seen: set[str | None] = set()
        while not wanted <= seen:
            delivery = await it.next()
            seen.add(delivery.message_id)
            delivery.ack()


async def test_it_was_never_reported_ready_while_it_was_not_consuming(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url)) as it:
        node.close_connections()
        await eventually(lambda: it.broker.state.reconnects == 1, "reconnected", within_s=20)
        for state in it.states:
            assert state.ready == (state.phase is BrokerPhase.CONSUMING), state
        first_ready = next(number for number, state in enumerate(it.states) if state.ready)
        assert BrokerPhase.WAITING in [state.phase for state in it.states[first_ready:] if not state.ready]


async def test_a_connection_closed_by_an_operator_is_made_again(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url)) as it:
        await it.publish_event("first")
        in_hand = await it.next()
        node.ctl("close_all_connections", "for maintenance")
        await eventually(lambda: it.broker.state.reconnects == 1, "reconnected", within_s=20)
        errors = [state.last_error for state in it.states if state.last_error]
        assert "for maintenance" in str(errors[0])
        assert "(320)" in str(errors[0])
        in_hand.requeue()  # on a closed channel, which is harmless
        again = await it.next()
        assert again.message_id == "first"
        assert again.redelivered
        again.ack()
        await consuming_again(it)


async def test_a_delivery_of_a_lost_connection_does_not_settle_its_namesake_on_the_next(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url), lanes={Lane.LIVE: 10}) as it:
        await it.publish_event("first")
        old = await it.next()
        node.close_connections()
        new = await it.next()
        assert (old.tag, old.message_id) == (new.tag, new.message_id)
        old.ack()
        await it.publish_event("second")
        assert (await it.next()).message_id == "second"
        assert it.broker.state.unsettled == 2  # the first is still to be settled
        new.ack()
        assert it.broker.state.unsettled == 1


def reasons_of_ended_channels(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why RabbitMQ ended channels."""
    return [entry["reason"] for entry in log if entry["event"] == "RabbitMQ ended a channel"]


def lanes_cancelled(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lanes whose consumers RabbitMQ ended."""
    return [entry["lane"] for entry in log if entry["event"] == "RabbitMQ ended a consumer; was its queue deleted?"]


async def test_a_deleted_queue_is_declared_and_consumed_again(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with serving(settings) as it, open_operator(settings) as operator:
        await it.publish_event("lost with its queue")
        in_hand = await it.next()
        queue = it.topology.lane_queue(Lane.LIVE)
        # The state without the lane lasts a few milliseconds only, too short to be polled for; its log entry stays.
        with capture_logs() as log:
            await operator.call("queue_delete", queue=queue)
            await eventually(lambda: lanes_cancelled(log) == ["live"], "the cancel arrives", within_s=20)
        await eventually(lambda: it.broker.state.lanes == frozenset(Lane), "both lanes again", within_s=20)
        assert (await operator.call("queue_declare", queue=queue, passive=True)).method.consumer_count == 1
        in_hand.ack()  # its queue is gone, its channel is not
        await it.publish_event("after")
        assert (await it.next()).message_id == "after"
        assert it.broker.state.reconnects == 0


async def test_a_deleted_exchange_is_declared_again_and_gets_the_result_that_was_held(node: PrivateBroker) -> None:
    settings = settings_for(node.url)
    async with serving(settings) as it, open_operator(settings) as operator:
        await it.publish_event("in hand")
        in_hand = await it.next()
        await operator.call("exchange_delete", exchange=it.topology.results_exchange)
        result = OutgoingMessage(b"{}", "application/json", {}, "result", "acme.tagged")
        await asyncio.wait_for(it.broker.publish_result(result), 20)
        in_hand.ack()
        pauses = [state.pauses["results_cannot_be_published"] for state in it.states if state.paused]
        assert "no exchange" in pauses[0].message
        await consuming_again(it)
        assert it.broker.state.reconnects == 0


async def test_a_channel_closed_by_the_broker_is_replaced_and_what_was_in_hand_comes_again(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url)) as it:
        await it.publish_event("event")
        in_hand = await it.next()
        session = it.broker._consuming.session
        assert session is not None
        with capture_logs() as log:
            for consumer in session.consumers:
                consumer._channel.raw.basic_ack(999)  # an unknown tag: the broker closes the channel
            await eventually(lambda: it.lost == [in_hand], "the loss is reported", within_s=20)
            # Each lane has a channel, and the other one may be closed a little later
            await eventually(lambda: len(reasons_of_ended_channels(log)) == 2, "both ends are reported")
        assert in_hand.lost
        assert reasons_of_ended_channels(log) == ["unknown_delivery_tag"] * 2
        again = await it.next()
        assert again.message_id == in_hand.message_id
        in_hand.ack()
        again.ack()
        await consuming_again(it)
        assert it.broker.state.reconnects == 0


@pytest.mark.parametrize("alarm", ["memory", "disk"])
async def test_a_blocked_broker_is_shown_and_waited_for(node: PrivateBroker, alarm: str) -> None:
    raise_alarm = node.set_memory_alarm if alarm == "memory" else node.set_disk_alarm
    async with serving(settings_for(node.url, confirm_timeout_s=1, connection_timeout_s=1)) as it:
        await it.publish_event("before")
        in_hand = await it.next()
        await asyncio.to_thread(raise_alarm, True)
        publishing = asyncio.create_task(it.publish_event("during"))
        await eventually(lambda: it.broker.state.blocked, "blocked", within_s=20)
        assert "resource" in str(it.broker.state.blocked) or alarm in str(it.broker.state.blocked)
        in_hand.ack()
        stopping = asyncio.create_task(it.broker.stop_consuming("meanwhile"))
        await asyncio.sleep(3)  # longer than the timeouts for a confirm and for a reply
        assert not publishing.done()
        assert it.broker.state.connected
        await asyncio.to_thread(raise_alarm, False)
        await asyncio.wait_for(publishing, 40)
        await asyncio.wait_for(stopping, 40)
        await it.broker.resume_consuming("meanwhile")
        await eventually(lambda: it.broker.state.blocked is None, "unblocked", within_s=20)
        assert (await it.next()).message_id == "during"
        assert it.broker.state.reconnects == 0
        assert any(state.blocked for state in it.states)


async def test_a_broker_that_stays_blocked_is_given_up_and_closing_does_not_hang_on_it(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url, blocked_timeout_s=1)) as it:
        await asyncio.to_thread(node.set_memory_alarm, True)
        with pytest.raises(NotConfirmed, match=r"[Bb]locked"):
            await asyncio.wait_for(it.publish_event(), 10)
        # A new connection is blocked once something is published: a probe, so that no event is taken for that
        await eventually(lambda: it.broker.state.connected and it.broker.state.blocked, "blocked again", within_s=20)
        assert it.broker.state.lanes == frozenset()
        assert it.broker.state.pauses["broker_blocked"].since_s < time.monotonic() - 1  # since the first connection
        publishing = asyncio.create_task(it.publish_event())
        await asyncio.sleep(0)
        began_s = time.monotonic()
        await it.broker.close()
        assert time.monotonic() - began_s < 15
        assert isinstance((await asyncio.gather(publishing, return_exceptions=True))[0], NotConfirmed)
        await asyncio.to_thread(node.set_memory_alarm, False)


async def test_a_frozen_broker_is_given_up_after_its_heartbeats_stay_away(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url, heartbeat_s=1, confirm_timeout_s=2, connection_timeout_s=1)) as it:
        await it.publish_event()
        in_hand = await it.next()
        node.pause()
        with pytest.raises(NotConfirmed, match="within 2 s"):
            await it.publish_event("unanswered")
        await eventually(lambda: not it.broker.state.ready, "given up", within_s=20)
        await eventually(
            lambda: any("silent" in str(state.last_error) for state in it.states), "the reason is reported", within_s=20
        )
        node.resume()
        await consuming_again(it)
        in_hand.ack()
        (await it.next()).ack()


async def test_closing_a_frozen_broker_does_not_hang(node: PrivateBroker) -> None:
    async with serving(settings_for(node.url)) as it:
        node.pause()
        began_s = time.monotonic()
        await it.broker.close()
        await it.broker.close()
        assert time.monotonic() - began_s < 10
        assert it.broker.state.phase is BrokerPhase.CLOSED
        node.resume()


async def test_permission_revoked_while_running_is_reported_and_consuming_resumes_when_it_is_back(
    node: PrivateBroker,
) -> None:
    node.ctl("add_user", "worker", "secret")
    node.ctl("set_permissions", "worker", ".*", ".*", ".*")
    async with serving(settings_for(node.url_of("/", "worker", "secret"))) as it:
        await asyncio.to_thread(node.ctl, "set_permissions", "worker", ".*", ".*", "^$")
        node.close_connections()
        await eventually(
            lambda: "lane_live_cannot_be_consumed" in it.broker.state.pauses, "it is not consumed", within_s=20
        )
        assert "ACCESS_REFUSED" in it.broker.state.pauses["lane_live_cannot_be_consumed"].message
        await asyncio.to_thread(node.ctl, "set_permissions", "worker", ".*", ".*", ".*")
        await consuming_again(it)

"""An operator deletes the queue, unbinds the results, closes the connection, takes a permission away."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from rabbitmq_node import PrivateBroker

from tests.support.scene import Scene, scene, send
from tests.support.service import until
from worker.amqp.declare import declare
from worker.amqp.link import connected
from worker.settings import AmqpSettings
from worker.topology import topology


def test_a_deleted_queue_is_declared_again_and_what_was_in_hand_is_answered(far: Scene) -> None:
    # Given events in hand, and none in the queue
    model = far.child("model")
    send(model, signal.SIGSTOP)
    far.load(20)
    until(lambda: far.service.status()["broker"]["unsettled"] == 20, "all are in hand")  # type: ignore[index]
    # When their queue is deleted
    far.dms.delete_queue("images.live")
    # Then the service learns of it, declares the queue again and consumes from it
    until(lambda: far.logged("RabbitMQ ended a consumer; was its queue deleted?"), "the consumer was cancelled")
    until(lambda: far.dms.exists("images.live"), "the queue is there again")
    until(lambda: (far.service.status() or {}).get("ready"), "ready again")
    far.load(20)
    # And all events are answered
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}


def test_results_without_a_queue_keep_their_events_until_the_binding_is_there_again(far: Scene) -> None:
    far.dms.unbind_results()
    far.load(40)
    # The service finds out, keeps the events, and binds the queue again, since declaring is its to do
    until(lambda: far.logged("result is unroutable; the event is kept and comes back"), "it was noticed")
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}
    assert far.ledger.dead == {}


def test_where_declaring_is_the_administrators_the_events_wait_for_the_administrator(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    asyncio.run(declared(broker, queue_prefix))
    with scene(broker, queue_prefix, tmp_path, photographs, AMQP__DECLARE="false") as it:
        it.dms.unbind_results()
        it.load(40)
        until(lambda: it.logged("result is unroutable; the event is kept and comes back"), "it was noticed")
        time.sleep(3)
        it.ledger.gather()
        assert it.ledger.results == {}
        assert it.ledger.dead == {}
        it.dms.bind_results()
        it.ledger.settle()
        assert it.ledger.statuses() == {"tagged"}
        assert it.ledger.dead == {}


async def declared(url: str, prefix: str) -> None:
    settings = AmqpSettings.model_validate({"url": url, "queue_prefix": prefix})
    async with connected(settings, "administrator") as link:
        await declare(link, topology(prefix, (1, 2)))


def test_a_connection_closed_by_an_operator_is_made_again(far: Scene, node: PrivateBroker) -> None:
    far.under_load()
    assert node.close_connections() >= 1
    until(lambda: "closed by the operator" in far.service.logged(), "the operator's words are in the log")
    far.meet_again(node.url)
    until(lambda: (far.service.status() or {}).get("ready"), "ready again", within_s=10)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}


def test_while_the_permission_to_publish_is_gone_events_wait_and_none_is_set_aside(
    far: Scene, node: PrivateBroker
) -> None:
    far.under_load(100)
    node.ctl("set_permissions", "worker", ".*", "^$", ".*")
    try:
        until(lambda: "ACCESS_REFUSED" in far.service.logged() or "refused" in far.service.logged(), "it is told")
        time.sleep(8)
        far.ledger.gather()
        assert far.ledger.dead == {}, "set aside though nothing was wrong with them"
        assert far.ledger.published > far.ledger.ended
    finally:
        node.ctl("set_permissions", "worker", ".*", ".*", ".*")
    until(lambda: (far.service.status() or {}).get("ready"), "ready again", within_s=20)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}
    assert far.ledger.dead == {}


def test_while_the_permission_to_consume_is_gone_it_says_so_and_is_not_ready(far: Scene, node: PrivateBroker) -> None:
    far.under_load(100)
    node.ctl("set_permissions", "worker", ".*", ".*", "^$")
    try:
        node.close_connections()
        why = until(lambda: (far.service.status() or {}).get("why_not"), "it is not ready")
        until(lambda: "permission" in str(far.service.status()) or "refused" in str(far.service.status()), why)
    finally:
        node.ctl("set_permissions", "worker", ".*", ".*", ".*")
    far.meet_again(node.url)
    until(lambda: (far.service.status() or {}).get("ready"), "ready again", within_s=20)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}

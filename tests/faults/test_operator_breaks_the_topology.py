"""An operator deletes the queue, unbinds the results, closes the connection, or revokes a permission."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rabbitmq_node import PrivateBroker

from tests.support.fault_injection import FaultInjector
from tests.support.ledger import Ledger
from tests.support.polling import until
from tests.support.processes import send
from tests.support.scene import QUICK, Scene, scene
from tests.support.service import Dms, running_service
from worker.amqp.connection import connected
from worker.amqp.declare import declare
from worker.amqp.topology import topology
from worker.settings import AmqpSettings


def test_a_deleted_queue_is_declared_again_and_what_was_in_hand_is_answered(far: Scene) -> None:
    # Given events in hand, and none in the queue
    model = far.child("model")
    send(model, signal.SIGSTOP)
    far.load(20)
    until(lambda: far.service.status()["broker"]["unsettled"] == 20, "all are in hand")  # type: ignore[index]
    # When their queue is deleted
    far.dms.delete_queue("images.live")
    # Then the service is notified, declares the queue again and consumes from it
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
    # The service notices, keeps the events, and binds the queue again, since `amqp.declare` is on
    until(lambda: far.logged("not taken by RabbitMQ", way="results"), "it was noticed")
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
        until(lambda: it.logged("not taken by RabbitMQ", way="results"), "it was noticed")
        until(lambda: (it.service.status() or {})["broker"]["lanes"] == [], "no more events are taken")
        assert "bind" in str((it.service.status() or {})["why_not"])
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
    async with connected(settings, "administrator") as connection:
        await declare(connection, topology(prefix, (1, 2)))


def test_a_connection_closed_by_an_operator_is_made_again(far: Scene, node: PrivateBroker) -> None:
    far.under_load()
    assert node.close_connections() >= 1
    until(lambda: "closed by the operator" in far.service.logged(), "the operator's text is in the log")
    far.reconnect(node.url)
    until(lambda: (far.service.status() or {}).get("ready"), "ready again", within_s=10)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}


@pytest.mark.parametrize(("write", "read"), [("^$", ".*"), (".*", "^$")], ids=["to publish", "to consume"])
def test_without_a_permission_it_is_not_ready_and_reports_why_and_resumes_when_it_has_it_again(
    far: Scene, node: PrivateBroker, write: str, read: str
) -> None:
    far.under_load()
    node.ctl("set_permissions", "worker", ".*", write, read)
    try:
        node.close_connections()  # RabbitMQ checks permissions when a channel is opened, not for every message
        until(lambda: "refused" in str((far.service.status() or {}).get("why_not")), "it reports why it is not ready")
    finally:
        node.ctl("set_permissions", "worker", ".*", ".*", ".*")
    far.reconnect(node.url)
    until(lambda: (far.service.status() or {}).get("ready"), "ready again", within_s=10)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}


def test_a_worker_that_starts_without_the_right_to_publish_is_never_ready_and_takes_no_event(
    node: PrivateBroker, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    # Given a queue with events, and a user who may consume them and publish nothing
    prefix = "silent"
    asyncio.run(declared(node.url, prefix))
    node.ctl("add_user", "silent", "secret")
    node.ctl("set_permissions", "silent", "^$", "^$", ".*")
    roots = json.dumps([str(next(iter(photographs.values())).parent)])
    options = QUICK | {"SOURCES__PATH_ROOTS": roots, "AMQP__DECLARE": "false"}
    dms = Dms(node.url, prefix)
    url = node.url_of("/", "silent", "secret")
    with running_service(url, prefix, tmp_path, **options) as service:
        it = Scene(service, Ledger(dms), photographs, tmp_path, FaultInjector(tmp_path / "fault-injection"))
        it.load(10)
        looks: list[bool] = []

        def look() -> dict[str, Any]:
            status = service.status() or {}
            if status:
                looks.append(bool(status["ready"]))
            return status

        until(lambda: "retries_cannot_be_published" in str(look().get("broker")), "it has found out")
        until(lambda: look() and it.children("model"), "its model is ready")
        # When it is looked at a hundred times
        until(lambda: look() and len(looks) >= 100, "it was looked at a hundred times")
        # Then it was never ready, and has taken nothing
        assert not any(looks)
        assert dms.depth("images.live") == 10
        # And answers all once it may publish
        node.ctl("set_permissions", "silent", "^$", ".*", ".*")
        it.ledger.settle()
        assert it.ledger.statuses() == {"tagged"}
        assert it.ledger.dead == {}
        assert service.stop() == 0
    dms.close()


@pytest.mark.slow_fault
def test_a_worker_that_may_consume_and_not_publish_keeps_every_event_and_dead_letters_none(
    node: PrivateBroker, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    # Given a service that declares nothing, so that its permissions are first checked when it publishes
    asyncio.run(declared(node.url, "no-permission"))
    node.ctl("add_user", "reader", "secret")
    node.ctl("set_permissions", "reader", "^$", ".*", ".*")
    url = node.url_of("/", "reader", "secret")
    with scene(url, "no-permission", tmp_path, photographs, dms_url=node.url, AMQP__DECLARE="false") as it:
        # When the permission to publish is revoked, and it gets events
        node.ctl("set_permissions", "reader", "^$", "^$", ".*")
        node.close_connections()
        it.reconnect(node.url)
        it.load(20)
        until(lambda: "ACCESS_REFUSED" in it.service.logged(), "RabbitMQ refuses its results")
        time.sleep(8)
        # Then every event is still in its queue
        it.ledger.gather()
        assert it.ledger.ended == set()
        # And is answered once the permission is restored
        node.ctl("set_permissions", "reader", "^$", ".*", ".*")
        it.ledger.settle()
        assert it.ledger.statuses() == {"tagged"}
        assert it.ledger.dead == {}

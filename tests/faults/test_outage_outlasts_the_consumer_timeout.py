"""Results cannot be published for 25 of RabbitMQ's consumer timeouts: in an alarm, and with a full results queue.

The timeout is scaled down: 30 minutes are 1 second here, and `amqp.hold_s` (15 minutes) is half of that.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rabbitmq_node import PrivateBroker

from tests.support.polling import until
from tests.support.processes import send
from tests.support.scene import Scene, scene
from worker.amqp.connection import connected
from worker.settings import AmqpSettings

EVENTS = 20
CONSUMER_TIMEOUT_S = 1.0
TIMEOUTS = 25
SCALED = {
    "AMQP__HOLD_S": str(CONSUMER_TIMEOUT_S / 2),
    "AMQP__BLOCKED_TIMEOUT_S": "1",
    "TENSORFLOW__BATCH_TIMEOUT_S": "60",
}


@pytest.fixture
def node() -> Iterator[PrivateBroker]:
    """A broker with a short consumer timeout, which it looks at often."""
    with PrivateBroker() as node:
        node.eval(f"application:set_env(rabbit, consumer_timeout, {round(CONSUMER_TIMEOUT_S * 1000)})")
        node.eval("application:set_env(rabbit, channel_tick_interval, 100)")
        yield node


def given_back(it: Scene) -> int:
    """How many events went back to their queue because they were in hand for too long."""
    return sum(
        line["events"]
        for line in it.logged(
            "events were in hand for longer than amqp.hold_s without an end; they go back to their queue"
        )
    )


def outlast(it: Scene) -> None:
    """Wait for 25 consumer timeouts: all events are in their queue, where no attempt and no redelivery is spent."""
    until(lambda: it.dms.depth("images.live") == EVENTS, "all events are back in their queue")
    ends_at_s = time.monotonic() + TIMEOUTS * CONSUMER_TIMEOUT_S
    until(lambda: time.monotonic() > ends_at_s, "25 consumer timeouts have passed", within_s=TIMEOUTS * 2)
    assert it.dms.depth("images.live") == EVENTS
    assert given_back(it) == EVENTS
    assert (it.service.status() or {})["ready"] is False


def all_answered_at_their_first_attempt(it: Scene) -> None:
    until(lambda: (it.service.status() or {}).get("ready"), "it is ready again", within_s=40)
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}
    assert it.ledger.dead == {}
    assert {line["attempt"] for line in it.logged("event ended")} == {1}
    assert it.logged("RabbitMQ ended a channel") == []
    assert given_back(it) == EVENTS


def in_hand(it: Scene) -> Any:
    """Have events in hand whose answers are still to come; the stopped model child."""
    model = it.child("model")
    send(model, signal.SIGSTOP)
    it.load(EVENTS)
    until(lambda: (it.service.status() or {})["broker"]["unsettled"] == EVENTS, "all are in hand")
    return model


@pytest.mark.slow_fault
def test_an_alarm_of_25_timeouts_with_as_many_lost_connections_costs_no_event_an_attempt(
    node: PrivateBroker, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    with scene(node.url, "alarm", tmp_path, photographs, **SCALED) as it:
        model = in_hand(it)
        node.set_memory_alarm(True)
        try:
            model.send_signal(signal.SIGCONT)
            until(lambda: (it.service.status() or {}).get("reason") == "broker_blocked", "it says that it is blocked")
            outlast(it)
            lost = it.logged("no connection to RabbitMQ", connection="publishing")
            assert len(lost) > TIMEOUTS / 4  # each second or so, but for the pauses between them
        finally:
            node.set_memory_alarm(False)
        all_answered_at_their_first_attempt(it)


@pytest.mark.slow_fault
def test_a_results_queue_that_is_full_for_25_timeouts_costs_no_event_an_attempt(
    node: PrivateBroker, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    asyncio.run(declare_small_results_queue(node.url, "full"))
    with scene(node.url, "full", tmp_path, photographs, **SCALED) as it:
        model = in_hand(it)
        number = fill_results(it)
        model.send_signal(signal.SIGCONT)
        until(
            lambda: (it.service.status() or {}).get("reason") == "results_cannot_be_published",
            "it says that it is full",
        )
        outlast(it)
        for _ in range(number):
            it.dms.take("results")
        all_answered_at_their_first_attempt(it)


def fill_results(it: Scene) -> int:
    """Fill the results queue with other messages, as many as it takes; how many."""
    number = 0
    while it.dms.fits("results"):
        number += 1
    return number


async def declare_small_results_queue(url: str, prefix: str) -> None:
    arguments = {"x-queue-type": "quorum", "x-max-length": 5, "x-overflow": "reject-publish"}
    settings = AmqpSettings.model_validate({"url": url})
    async with connected(settings, "administrator") as connection:
        channel = await connection.channel()
        queue = f"{prefix}.results"
        action = f"declaring queue {queue}"
        await channel.call(channel.raw.queue_declare, queue=queue, durable=True, arguments=arguments, action=action)

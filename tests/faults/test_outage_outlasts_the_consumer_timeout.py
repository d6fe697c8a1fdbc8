"""Results cannot be published for 25 of RabbitMQ's consumer timeouts: in an alarm, and with a full results queue.

The timeout is scaled down: 30 minutes are 2 seconds here, and `amqp.hold_s` (15 minutes) is half of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rabbitmq_node import PrivateBroker

from tests.support.polling import until
from tests.support.scene import Scene, scene
from worker.amqp.connection import connected
from worker.settings import AmqpSettings

EVENTS = 20
CONSUMER_TIMEOUT_S = 2.0
TIMEOUTS = 25
SCALED = {"AMQP__HOLD_S": str(CONSUMER_TIMEOUT_S / 2), "AMQP__BLOCKED_TIMEOUT_S": "1"}


@pytest.fixture
def node() -> Iterator[PrivateBroker]:
    """A broker with a short consumer timeout, which it looks at often."""
    with PrivateBroker() as node:
        node.eval(f"application:set_env(rabbit, consumer_timeout, {round(CONSUMER_TIMEOUT_S * 1000)})")
        node.eval("application:set_env(rabbit, channel_tick_interval, 100)")
        yield node


def given_back(it: Scene) -> int:
    """How many events went back to their queue because they were in hand for too long."""
    event = "events were in hand for longer than amqp.hold_s without an end; they go back to their queue"
    return sum(line["events"] for line in it.logged(event))


def status(it: Scene) -> dict[str, Any]:
    return it.service.status() or {"broker": {}}


def outlast(it: Scene, reason: str) -> None:
    """Wait for 25 consumer timeouts: the events go back once, and stay in their queue without a further delivery."""
    until(lambda: status(it).get("reason") == reason, f"it says {reason}")
    until(lambda: status(it)["broker"].get("unsettled") == 0, "nothing is in hand any more", within_s=20)
    waiting, back = it.dms.depth("images.live"), given_back(it)
    assert EVENTS / 2 < waiting <= EVENTS
    assert back <= 2 * EVENTS  # on a busy machine some took that long to be tagged
    ends_at_s = time.monotonic() + TIMEOUTS * CONSUMER_TIMEOUT_S
    until(lambda: time.monotonic() > ends_at_s, "25 consumer timeouts have passed", within_s=TIMEOUTS * 10)
    assert (it.dms.depth("images.live"), given_back(it)) == (waiting, back)
    assert status(it)["ready"] is False


def all_answered_at_their_first_attempt(it: Scene) -> None:
    until(lambda: status(it).get("ready"), "it is ready again", within_s=40)
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}
    assert it.ledger.dead == {}
    assert {line["attempt"] for line in it.logged("event ended")} == {1}
    assert it.logged("RabbitMQ ended a channel") == []


@pytest.mark.slow_fault
def test_an_alarm_of_25_timeouts_with_many_lost_connections_costs_no_event_an_attempt(
    node: PrivateBroker, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    with scene(node.url, "alarm", tmp_path, photographs, **SCALED, LOG__LEVEL="debug") as it:
        with it.service.paused():
            it.load(EVENTS)
            node.set_memory_alarm(True)
        try:
            # It takes the events, since it is not blocked until it publishes
            outlast(it, "broker_blocked")
            assert len(it.logged("no connection to RabbitMQ", connection="publishing")) >= TIMEOUTS / 2
            assert it.logged("no connection to RabbitMQ", connection="consuming") == []
        finally:
            node.set_memory_alarm(False)
        all_answered_at_their_first_attempt(it)


@pytest.mark.slow_fault
def test_a_results_queue_that_is_full_for_25_timeouts_costs_no_event_an_attempt(
    node: PrivateBroker, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    asyncio.run(declare_small_results_queue(node.url, "full"))
    with scene(node.url, "full", tmp_path, photographs, **SCALED) as it:
        with it.service.paused():
            it.load(EVENTS)
            number = fill_results(it)
        outlast(it, "results_cannot_be_published")
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

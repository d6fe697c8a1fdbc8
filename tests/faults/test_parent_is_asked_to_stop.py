"""SIGTERM at any moment: what is in hand is finished or goes back to its queue, and the service is gone in time."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rabbitmq_node import PrivateBroker

from tests.support.ledger import Ledger
from tests.support.polling import until
from tests.support.processes import children_started_by, gone, send
from tests.support.scene import QUICK, scene
from tests.support.service import Dms, RunningService, running_service

GRACE_S = 8.0
SEED = 20261123
EVENTS_A_ROUND = 30


def stopped_in_time(service: RunningService, grace_s: float) -> float:
    """Send SIGTERM; how long the service took to end, with status 0, and not much later than its grace time.

    A busy machine takes its time for the last step, ending the process; something that hangs takes half a minute.
    """
    asked_at_s = time.monotonic()
    assert service.stop(within_s=2 * grace_s) == 0, service.logged()[-4000:]
    assert children_started_by(service.process.pid) == []
    return time.monotonic() - asked_at_s


def terminate_at_random_moments(
    rounds: int, broker: str, prefix: str, folder: Path, photographs: dict[str, Path]
) -> None:
    """In each round a service is started on a queue with events, and asked to stop up to three seconds later."""
    randomly = random.Random(SEED)
    settings = QUICK | {
        "SHUTDOWN_GRACE_S": str(GRACE_S),
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["coffee"].parent)]),
    }
    ledger: Ledger | None = None
    for number in range(rounds):
        with running_service(broker, prefix, folder / str(number), **settings) as service:
            # From the moment at which it can be talked to, which is before its model is ready
            until(service.status, "the service listens")
            if ledger is None:
                until(lambda: (service.status() or {}).get("ready"), "it has declared its queues")
                ledger = Ledger(Dms(broker, prefix))
            ledger.publish(photographs["coffee"], EVENTS_A_ROUND)
            time.sleep(randomly.uniform(0, 3))
            stopped_in_time(service, GRACE_S)
            ledger.gather()
    assert ledger is not None
    with running_service(broker, prefix, folder / "last", **settings) as last:
        ledger.settle()
        ledger.dms.close()
        last.ready()
        stopped_in_time(last, GRACE_S)
    assert len(ledger.published) == rounds * EVENTS_A_ROUND
    assert ledger.statuses() == {"tagged"}
    assert ledger.dead == {}


def test_at_four_random_moments_under_load_it_ends_with_status_0_in_time_and_loses_nothing(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    terminate_at_random_moments(4, broker, queue_prefix, tmp_path, photographs)


@pytest.mark.slow_fault
def test_at_twenty_random_moments_under_load_it_ends_with_status_0_in_time_and_loses_nothing(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    terminate_at_random_moments(20, broker, queue_prefix, tmp_path, photographs)


def test_no_new_delivery_is_taken_and_what_cannot_be_finished_goes_back_to_its_queue(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    # Given a model that hangs with events in hand, for much longer than the grace time
    patient = {"TENSORFLOW__BATCH_TIMEOUT_S": "120", "SHUTDOWN_GRACE_S": str(GRACE_S), "AMQP__PREFETCH": "32"}
    with scene(broker, queue_prefix, tmp_path, photographs, **patient) as it:
        model = it.child("model")
        send(model, signal.SIGSTOP)
        it.load(40)
        until(lambda: (it.service.status() or {})["broker"]["unsettled"] == 32, "as many in hand as it may hold")
        # When it is asked to stop
        took_s = stopped_in_time(it.service, GRACE_S)
        # Then it waits, and gives up in time
        assert took_s > GRACE_S / 3
        assert gone(model)
        assert it.logged("grace time is over; the rest goes back to its queue")
        until(lambda: it.dms.depth("images.live") == 40, "all are in their queue again", within_s=10)
        ledger = it.ledger
        ledger.gather()
        assert ledger.results == {}


def test_a_second_sigterm_ends_it_at_once(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    with scene(broker, queue_prefix, tmp_path, photographs, TENSORFLOW__BATCH_TIMEOUT_S="120") as it:
        send(it.child("model"), signal.SIGSTOP)
        it.load(20)
        until(lambda: (it.service.status() or {})["broker"]["unsettled"] == 20, "all are in hand")
        children = children_started_by(it.service.process.pid)
        it.service.process.send_signal(signal.SIGTERM)
        until(lambda: it.logged("stopping"), "it is stopping")
        it.service.process.send_signal(signal.SIGTERM)
        assert it.service.process.wait(10) == 128 + signal.SIGTERM
        until(lambda: all(map(gone, children)), "no child is left", within_s=10)
        until(lambda: it.dms.depth("images.live") == 20, "all are in their queue again", within_s=10)


@pytest.mark.parametrize(
    "trouble", ["frozen", *(pytest.param(each, marks=pytest.mark.slow_fault) for each in ("memory alarm", "gone"))]
)
def test_a_broker_in_trouble_does_not_keep_it_from_ending_in_time(
    trouble: str, private_broker: Callable[..., PrivateBroker], tmp_path: Path, photographs: dict[str, Path]
) -> None:
    node = private_broker()
    grace = {"SHUTDOWN_GRACE_S": str(GRACE_S), "AMQP__CONNECTION_TIMEOUT_S": "10", "AMQP__HEARTBEAT_S": "30"}
    with scene(node.url, "in-trouble", tmp_path, photographs, **grace) as it:
        it.under_load(200)
        match trouble:
            case "memory alarm":
                node.set_memory_alarm(True)
                until(lambda: "blocked" in str((it.service.status() or {}).get("why_not")), "it is blocked")
            case "frozen":
                node.pause()
            case "gone":
                node.kill()
        stopped_in_time(it.service, GRACE_S)
        if trouble == "frozen":
            node.resume()

"""The broker is frozen with SIGSTOP: every connection stays open, and it does not reply."""

from __future__ import annotations

import time

import psutil
from rabbitmq_node import PrivateBroker

from tests.support.polling import until
from tests.support.readiness import watched
from tests.support.scene import Scene

NOTICED_WITHIN_S = 20.0
"""With `heartbeat_s` = 2, pika checks for heartbeats every 7 s, and gives up after two checks without one."""


def test_a_frozen_broker_is_noticed_by_its_silence_and_consumed_from_when_it_is_back(
    far: Scene, node: PrivateBroker
) -> None:
    far.under_load(200)
    with watched(far.service) as readiness:
        node.pause()
        try:
            until(lambda: psutil.Process(node.pid).status() == psutil.STATUS_STOPPED, "it is frozen", within_s=2)
            until(lambda: not readiness.now, "it is noticed", within_s=NOTICED_WITHIN_S)
            noticed_at_s = time.monotonic()
            time.sleep(3)
            resumed_at_s = time.monotonic()
            assert not any(ready for when_s, ready in readiness.samples if when_s > noticed_at_s)
        finally:
            node.resume()
        until(lambda: readiness.first_ready_after(resumed_at_s), "ready again", within_s=10)
    far.reconnect(node.url)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}

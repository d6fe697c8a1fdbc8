"""The broker is restarted in order, as for an upgrade."""

from __future__ import annotations

from rabbitmq_node import PrivateBroker

from tests.support.polling import until
from tests.support.readiness import watched
from tests.support.scene import Scene


def test_a_restart_under_load_costs_no_event_and_it_consumes_again_within_ten_seconds(
    far: Scene, node: PrivateBroker
) -> None:
    far.under_load(200)
    pid_before = node.pid
    with watched(far.service) as readiness:
        node.stop()
        assert not node.running
        until(lambda: not readiness.now, "the loss is reported", within_s=10)
        samples_before = len(readiness.samples)
        node.start()
        until(lambda: any(ready for _, ready in readiness.samples[samples_before:]), "ready again", within_s=10)
    assert node.pid != pid_before
    far.reconnect(node.url)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}

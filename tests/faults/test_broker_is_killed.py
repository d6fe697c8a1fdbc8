"""The broker is killed with SIGKILL, and started again."""

from __future__ import annotations

import time

from rabbitmq_node import PrivateBroker

from tests.support.polling import until
from tests.support.readiness import watched
from tests.support.scene import Scene


def test_it_consumes_again_within_ten_seconds_of_the_brokers_return_and_was_never_ready_without(
    far: Scene, node: PrivateBroker
) -> None:
    # Given a service under load
    far.under_load(200)
    with watched(far.service) as readiness:
        # When the broker is killed, and started again some time later
        node.kill()
        killed_at_s = time.monotonic()
        assert not node.running
        time.sleep(2)
        began_to_start_at_s = time.monotonic()
        node.start()
        back_at_s = time.monotonic()
        # Then the service consumes again within ten seconds
        until(lambda: consumers(node), "there are consumers", within_s=10)
        until(lambda: readiness.first_ready_after(began_to_start_at_s), "it reports ready", within_s=10)
        assert (readiness.first_ready_after(began_to_start_at_s) or 0) - back_at_s < 10
        # And it never reported ready while the broker was down
        assert readiness.ready_times(killed_at_s + 0.5, began_to_start_at_s) == []
    # And every event, confirmed before the broker was killed, has its tags
    far.reconnect(node.url)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}


def consumers(node: PrivateBroker) -> int:
    """How many consumers the broker has."""
    return int(node.eval('length(rabbit_amqqueue:consumers_all(<<"/">>))'))

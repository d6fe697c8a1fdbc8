"""Five network faults between service and broker, injected by a proxy that counts what it does."""

from __future__ import annotations

import pytest

from tests.support.polling import until
from tests.support.proxy import Proxy
from tests.support.scene import Scene

NOTICED_WITHIN_S = 20.0
"""With `heartbeat_s` = 2, pika checks for heartbeats every 7 s, and gives up after two checks without one."""


def ready(far: Scene) -> bool:
    return bool((far.service.status() or {}).get("ready"))


def test_a_dropped_connection_is_made_again_as_soon_as_it_can_be(far: Scene, proxy: Proxy) -> None:
    far.under_load()
    assert proxy.drop() == 2  # the one that consumes, and the one that publishes
    until(lambda: not ready(far), "the loss is reported", within_s=10)
    until(lambda: proxy.refused >= 2, "it tries again")
    assert not ready(far)

    proxy.heal()

    until(lambda: ready(far), "ready again", within_s=10)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}


def test_a_black_hole_is_noticed_by_its_silence(far: Scene, proxy: Proxy) -> None:
    far.under_load()
    proxy.black_hole()
    until(lambda: proxy.swallowed_bytes > 0, "bytes were swallowed")
    until(lambda: not ready(far), "it is noticed", within_s=NOTICED_WITHIN_S)

    proxy.heal()

    until(lambda: ready(far), "ready again", within_s=10)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}


@pytest.mark.slow_fault
def test_a_half_open_connection_is_given_up(far: Scene, proxy: Proxy) -> None:
    far.under_load()
    swallowed = proxy.swallowed_bytes
    connections = proxy.connections
    assert proxy.half_open() == 2  # the broker sees our ends close and requeues our deliveries; we see nothing
    until(lambda: proxy.swallowed_bytes > swallowed, "what we sent afterwards was discarded")
    until(lambda: proxy.connections > connections, "another connection was made", within_s=NOTICED_WITHIN_S)
    until(lambda: ready(far), "ready again", within_s=10)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}


def test_a_connection_of_one_kibibyte_a_second_is_slow_and_nothing_else(far: Scene, proxy: Proxy) -> None:
    reconnects = far.service.status()["broker"]["reconnects"]  # type: ignore[index]
    proxy.slow()
    far.load(5)
    far.ledger.settle(within_s=60)
    assert proxy.slow_bytes > 5 * 1024
    assert far.service.status()["broker"]["reconnects"] == reconnects  # type: ignore[index]
    assert {len(messages) for messages in far.ledger.results.values()} == {1}


def test_a_reset_in_the_middle_of_a_frame_costs_nothing(far: Scene, proxy: Proxy) -> None:
    far.under_load()
    resets, connections = proxy.resets, proxy.connections
    proxy.cut_a_frame()
    until(lambda: proxy.resets > resets, "a frame was cut")
    until(lambda: proxy.connections > connections, "another connection was made")
    until(lambda: ready(far), "ready again", within_s=10)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}

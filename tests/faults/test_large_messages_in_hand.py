"""Many large messages are waiting: those in hand are bounded by their bytes, not only by their number."""

from __future__ import annotations

import base64
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rabbitmq_node import PrivateBroker

from tests.support.polling import until
from tests.support.processes import send
from tests.support.scene import scene

EVENTS = 64
IMAGE_BYTES = 4_500_000  # 6 MB as base64
MEBIBYTE = 1024**2


@pytest.fixture
def node() -> Iterator[PrivateBroker]:
    with PrivateBroker() as node:
        yield node


@pytest.mark.slow_fault
def test_64_messages_of_6_mb_leave_the_parent_small_and_its_connection_alive(
    node: PrivateBroker, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    settings = {"AMQP__MAXIMUM_BYTES_IN_HAND": "64MiB", "TENSORFLOW__BATCH_TIMEOUT_S": "120"}
    with scene(node.url, "large", tmp_path, photographs, **settings) as it:
        image = photographs["coffee"].read_bytes()
        content = {"base64": base64.b64encode(image.ljust(IMAGE_BYTES, b"\0")).decode()}
        parent = psutil.Process(it.service.process.pid)
        idle_bytes = parent.memory_info().rss
        with it.service.paused():
            it.ledger.published.update(it.dms.publish(content) for _ in range(EVENTS))
        # When they come while the model does not answer
        model = it.child("model")
        send(model, signal.SIGSTOP)
        until(
            lambda: "bytes_in_hand" in str((it.service.status() or {})["broker"]["pauses"]), "it says so", within_s=60
        )
        # Then a few are in hand, for many heartbeats (of 2 s), and the connection is alive
        ends_at_s = time.monotonic() + 30
        until(lambda: time.monotonic() > ends_at_s, "30 s have passed", within_s=60)
        broker = (it.service.status() or {})["broker"]
        in_hand = broker["unsettled"]
        grown_bytes = parent.memory_info().rss - idle_bytes
        assert 8 <= in_hand <= 14
        assert grown_bytes < 200 * MEBIBYTE, (in_hand, grown_bytes)
        assert broker["reconnects"] == 0
        # And all are answered once it does
        model.send_signal(signal.SIGCONT)
        it.ledger.settle(within_s=120)
        assert it.ledger.statuses() == {"tagged"}
        assert (it.service.status() or {})["broker"]["reconnects"] == 0
        assert it.ledger.dead == {}


@pytest.mark.slow_fault
def test_messages_of_16_mb_that_fill_rabbitmqs_memory_are_all_answered(
    node: PrivateBroker, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    with scene(node.url, "large", tmp_path, photographs, TENSORFLOW__BATCH_TIMEOUT_S="120") as it:
        image = photographs["coffee"].read_bytes()
        content = {"base64": base64.b64encode(image.ljust(12_000_000, b"\0")).decode()}
        with it.service.paused():
            it.ledger.published.update(it.dms.publish(content) for _ in range(60))
        it.ledger.settle(within_s=240)
        assert it.ledger.statuses() == {"tagged"}
        assert it.ledger.dead == {}

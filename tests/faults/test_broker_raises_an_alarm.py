"""The broker runs out of memory or disk: it raises an alarm, and stops reading from publishers."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

import psutil
import pytest
from rabbitmq_node import PrivateBroker

from tests.support.polling import until
from tests.support.processes import send
from tests.support.scene import Scene


@pytest.mark.parametrize("resource", ["memory", pytest.param("disk", marks=pytest.mark.slow_fault)])
def test_a_blocked_broker_is_reported_and_waited_for(far: Scene, node: PrivateBroker, resource: str) -> None:
    far.under_load(200)
    reconnects = far.service.status()["broker"]["reconnects"]  # type: ignore[index]
    alarm = node.set_memory_alarm if resource == "memory" else node.set_disk_alarm
    # The model is stopped meanwhile: RabbitMQ blocks only those who publish, so answers must be outstanding
    model = far.child("model")
    send(model, signal.SIGSTOP)
    alarm(True)
    try:
        assert node.alarms() == {resource}
        with suppress(psutil.NoSuchProcess):  # if that took longer than its deadline, it has been replaced
            model.send_signal(signal.SIGCONT)
        # Then the block is reported, and the service is not ready
        until(lambda: "blocked" in str((far.service.status() or {}).get("why_not")), "it is not ready any more")
        # And nothing is answered or given up, for longer than the timeout of a confirm
        far.ledger.gather()
        ended = far.ledger.ended
        time.sleep(6)
        far.ledger.gather()
        assert far.ledger.ended == ended
        assert far.service.status()["broker"]["reconnects"] == reconnects  # type: ignore[index]
    finally:
        alarm(False)
    until(lambda: (far.service.status() or {}).get("ready"), "it is ready again", within_s=10)
    far.ledger.settle()
    assert far.ledger.statuses() == {"tagged"}
    assert far.ledger.dead == {}

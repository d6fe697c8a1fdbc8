"""The broker runs out of memory or disk: it raises an alarm, and stops reading from those who publish."""

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
def test_a_blocked_broker_is_told_of_and_waited_for(far: Scene, node: PrivateBroker, resource: str) -> None:
    far.under_load(200)
    reconnects = far.service.status()["broker"]["reconnects"]  # type: ignore[index]
    alarm = node.set_memory_alarm if resource == "memory" else node.set_disk_alarm
    # The model is held up meanwhile: the broker blocks only those who publish, so something must be left to be answered
    model = far.child("model")
    send(model, signal.SIGSTOP)
    alarm(True)
    try:
        assert node.alarms() == {resource}
        with suppress(psutil.NoSuchProcess):  # where that took longer than its deadline, a successor goes on
            model.send_signal(signal.SIGCONT)
        # It says so, and that it is not ready
        until(lambda: "blocked" in str((far.service.status() or {}).get("why_not")), "it is not ready any more")
        # Nothing more is answered, and nothing is given up, for longer than a confirm may take
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

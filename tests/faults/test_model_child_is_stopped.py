"""SIGSTOP to the model child: alive for the kernel, and silent. No check that runs inside the child could detect it."""

from __future__ import annotations

import signal
import time

import psutil

from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import Scene

BATCH_TIMEOUT_S = 3.0


def test_a_stopped_model_child_is_killed_at_its_deadline_and_its_work_done_by_another(it: Scene) -> None:
    it.under_load()
    child = it.child("model")

    send(child, signal.SIGSTOP)
    stopped_at_s = time.monotonic()

    until(lambda: child.status() == psutil.STATUS_STOPPED, "it is stopped", within_s=2)
    until(lambda: gone(child), "it was killed", within_s=BATCH_TIMEOUT_S + 5)
    assert time.monotonic() - stopped_at_s < BATCH_TIMEOUT_S + 2
    assert it.crash(reason="silent_while_busy")
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

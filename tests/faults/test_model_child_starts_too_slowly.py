"""The model child's successor does not become ready in time."""

from __future__ import annotations

import signal

import pytest

from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import Scene

START_TIMEOUT_S = 10.0


@pytest.mark.slow_fault
def test_a_start_that_takes_too_long_is_ended_and_the_next_one_answers(it: Scene) -> None:
    it.under_load()
    child = it.child("model")
    it.faults.inject("start", "hang")

    send(child, signal.SIGKILL)

    until(lambda: gone(child), "it is gone")
    crash = it.crash(reason="silent_while_starting")
    assert "not ready after 10 s" in crash["cause"]
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

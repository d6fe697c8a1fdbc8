"""The model child's successor dies before it is ready, several times."""

from __future__ import annotations

import signal

from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import Scene


def test_events_wait_while_successors_die_at_their_start_and_are_answered_by_the_first_that_lives(it: Scene) -> None:
    # Given two starts that will fail in different ways
    it.under_load()
    child = it.child("model")
    it.faults.inject("start", "exit_3")
    it.faults.inject("start", "SIGABRT")
    # When the running child is killed
    send(child, signal.SIGKILL)
    # Then both successors die while starting, and each crash is counted
    until(lambda: gone(child), "it is gone")
    until(lambda: len(it.logged("child crashed")) == 3, "three crashes")
    assert {line["reason"] for line in it.logged("child crashed")} == {
        "killed_by_sigkill",
        "exited",
        "killed_by_sigabrt",
    }
    # And the third answers all events
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}
    assert it.child("model").pid not in [child.pid, *it.faults.taken()]

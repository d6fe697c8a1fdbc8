"""SIGSEGV in the model child: a fault in native code."""

from __future__ import annotations

import signal

from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import Scene


def test_a_segmentation_fault_costs_no_event_and_leaves_its_stack_in_the_log(it: Scene) -> None:
    it.under_load()
    child = it.child("model")

    send(child, signal.SIGSEGV)

    until(lambda: gone(child), "the child is gone")
    assert it.crash(reason="killed_by_sigsegv")["child"] == "model-1"
    (line,) = it.logged("last lines of the crashed child")
    assert "Segmentation fault" in "\n".join(line["lines"])
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}


def test_a_real_one_in_the_middle_of_a_batch_costs_no_event_either(it: Scene) -> None:
    child = it.child("model")
    it.faults.inject("job", "really_segv")

    it.load(50)

    assert it.crash(reason="killed_by_sigsegv")
    assert it.faults.taken()[-1] == child.pid
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

"""The kernel refuses the model child more memory. (Where it kills the child instead: test_model_child_is_killed.)"""

from __future__ import annotations

from tests.support.polling import until
from tests.support.processes import gone
from tests.support.scene import Scene


def test_a_model_child_without_memory_is_replaced_and_no_event_is_lost(it: Scene) -> None:
    child = it.child("model")
    # Given a limit on its address space, and a job in which it allocates all of it
    it.faults.inject("job", "exhaust_memory")
    it.load(50)
    # Then it dies, and its last lines show the reason
    until(lambda: gone(child), "the child is gone")
    assert it.faults.taken() == [child.pid]
    assert it.crash(child="model-1")
    output = "\n".join(line for lines in it.logged("last lines of the crashed child") for line in lines["lines"])
    assert "MemoryError" in output
    # And its successor answers all events
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

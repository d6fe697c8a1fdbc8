"""The model child gets no more memory from the kernel. (That the kernel may kill it instead: see SIGKILL.)"""

from __future__ import annotations

from tests.support.scene import Scene, gone
from tests.support.service import until


def test_a_model_child_without_memory_is_replaced_and_no_event_is_lost(it: Scene) -> None:
    child = it.child("model")
    # Given a limit on its address space, and a job in which it takes all that this allows
    it.orders.give("job", "exhaust_memory")
    it.load(50)
    # Then it dies of it, and says so
    until(lambda: gone(child), "the child is gone")
    assert it.orders.taken() == [child.pid]
    assert it.crash(child="model-1")
    said = "\n".join(line for lines in it.logged("last lines of the crashed child") for line in lines["lines"])
    assert "MemoryError" in said
    # And its successor answers
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

"""The model child gets no more memory from the kernel."""

from __future__ import annotations

import resource

from tests.support.scene import Scene, gone
from tests.support.service import until


def test_a_model_child_without_memory_is_replaced_and_no_event_is_lost(it: Scene) -> None:
    child = it.child("model")
    # Given a limit far below what it holds already: every further request of its allocator fails
    resource.prlimit(child.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    # When it gets work
    it.load(50)
    # Then it dies of it, and says so
    until(lambda: gone(child), "the child is gone")
    assert it.crash(child="model-1")
    said = "\n".join(line for lines in it.logged("last lines of the crashed child") for line in lines["lines"])
    assert "MemoryError" in said or "bad_alloc" in said or "out of memory" in said.lower()
    # And its successor, which has no such limit, answers
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

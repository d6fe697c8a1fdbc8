"""The model child takes a batch and never answers."""

from __future__ import annotations

import time

from tests.support.polling import until
from tests.support.processes import gone
from tests.support.scene import Scene

BATCH_TIMEOUT_S = 3.0


def test_a_hanging_model_child_is_killed_within_a_second_of_its_deadline(it: Scene) -> None:
    child = it.child("model")
    it.faults.inject("job", "hang")
    asked_at_s = time.monotonic()
    it.load(50)
    until(lambda: it.faults.taken()[-1:] == [child.pid], "it hangs")
    hangs_since_s = time.monotonic()

    until(lambda: gone(child), "it was killed")

    gone_at_s = time.monotonic()
    assert gone_at_s - asked_at_s > BATCH_TIMEOUT_S
    assert gone_at_s - hangs_since_s < BATCH_TIMEOUT_S + 1
    assert it.crash(reason="silent_while_busy")
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

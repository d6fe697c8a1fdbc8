"""The model child sends malformed or oversized packets, or closes its socket."""

from __future__ import annotations

import pytest

from tests.support.polling import until
from tests.support.processes import gone
from tests.support.scene import Scene


@pytest.mark.parametrize("how", ["garbage", "flood", "oversize"])
def test_a_model_child_that_breaks_the_protocol_is_killed_and_its_work_done_again(it: Scene, how: str) -> None:
    child = it.child("model")
    it.faults.inject("job", how)

    it.load(50)

    until(lambda: gone(child), "it was killed")
    assert it.faults.taken()[-1] == child.pid
    assert it.crash(reason="protocol_broken")
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}


def test_a_model_child_that_closes_its_socket_is_ended(it: Scene) -> None:
    child = it.child("model")
    it.faults.inject("job", "close")

    it.load(50)

    until(lambda: gone(child), "it was ended")
    assert it.crash(child="model-1")
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

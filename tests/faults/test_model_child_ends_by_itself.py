"""The model child exits, with status 0 or another, without having been asked to stop."""

from __future__ import annotations

import pytest

from tests.support.scene import Scene


@pytest.mark.parametrize(("how", "status"), [("exit_0", 0), ("exit_3", 3)])
def test_an_exit_that_was_not_requested_is_a_crash_whatever_its_status(it: Scene, how: str, status: int) -> None:
    child = it.child("model")
    it.faults.inject("job", how)

    it.load(50)

    assert f"exit code {status}" in it.crash(reason="exited")["cause"]
    assert it.faults.taken()[-1] == child.pid
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

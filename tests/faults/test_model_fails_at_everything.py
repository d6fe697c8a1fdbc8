"""A model child that hangs at every job, dies at every job, or never gets ready: it is disabled, and events wait.

The deadlines are shorter than the defaults; their ratio is kept: a hang, or a start, lasts longer than the interval
divided by the number of relaunches.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.polling import until
from tests.support.processes import send
from tests.support.scene import Scene, scene

RULE = {
    "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "2",
    "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": "5",
    "TENSORFLOW__BATCH_TIMEOUT_S": "3",
    "TENSORFLOW__START_TIMEOUT_S": "5",
}
EVENTS = 6
MANY = 100
"""More faults than children are launched and jobs are sent."""


def disabled(it: Scene) -> str:
    """Wait until the model is disabled; why."""
    why = until(lambda: (it.service.status() or {})["model"]["disabled"], "the model was disabled", within_s=60)
    assert isinstance(why, str)
    return why


def assert_events_wait_and_are_answered_after_a_reset(it: Scene) -> None:
    until(lambda: it.dms.depth("images.live") == EVENTS, "all events wait in their queue")
    it.ledger.gather()
    assert it.ledger.results == {}, "none has failed"
    assert it.ledger.dead == {}
    assert not (it.service.status() or {})["ready"]
    # And when the cause is mended and the operator resets it, all are answered
    it.faults.clear()
    assert it.service.autotag("reset").returncode == 0
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}


@pytest.mark.parametrize(("fault", "reason"), [("hang", "silent_while_busy"), ("SIGSEGV", "killed_by_sigsegv")])
def test_a_model_that_fails_at_every_job_is_disabled_and_no_event_fails(
    fault: str, reason: str, broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    with scene(broker, queue_prefix, tmp_path, photographs, **RULE) as it:
        it.faults.inject("job", fault, times=MANY)
        it.load(EVENTS)
        why = disabled(it)
        crashes = it.logged("child crashed")
        assert [line["reason"] for line in crashes] == [reason] * 3
        assert [line["relaunches_left"] for line in crashes] == [1, 0, 0]
        assert "crashed more than 2 times" in why
        assert_events_wait_and_are_answered_after_a_reset(it)


def test_a_model_that_never_gets_ready_is_disabled_and_events_wait(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    with scene(broker, queue_prefix, tmp_path, photographs, **RULE) as it:
        it.faults.inject("start", "hang", times=MANY)
        send(it.child("model"), signal.SIGKILL)
        it.load(EVENTS)
        assert "without answering an image in between" in disabled(it)
        assert [line["reason"] for line in it.logged("child crashed")] == [
            "killed_by_sigkill",
            "silent_while_starting",
            "silent_while_starting",
        ]
        assert_events_wait_and_are_answered_after_a_reset(it)

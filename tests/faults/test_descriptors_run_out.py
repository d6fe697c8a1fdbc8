"""The service has no descriptor left for a while."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.polling import until
from tests.support.scene import Scene


@contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    """Whatever the process opens in the block fails with EMFILE."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_without_descriptors_events_are_held_and_answered_when_there_are_some_again(it: Scene) -> None:
    # Given a service that cannot open a file
    with no_descriptor_left(it.service.process.pid):
        # When events come, more than there are attempts, one after the other
        ids = it.load(12)
        held = "held, and tried again after a pause"
        until(lambda: it.logged(held), "the fault happened")
        assert "Too many open files" in it.logged(held)[0]["error"]
        until(lambda: len(it.logged(held)) == 12, "all of them are held, with a line each")
    # Then all of them are tagged when there are descriptors again, and no attempt was counted
    it.ledger.settle()
    assert it.ledger.statuses(ids) == {"tagged"}
    assert {line["attempt"] for line in it.logged("event ended")} == {1}
    assert [line for line in it.lines() if "exception" in line] == []

"""SIGKILL to the model child, as the kernel sends when memory runs out."""

from __future__ import annotations

import signal
from functools import partial

from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import Scene


def test_every_event_has_its_tags_when_the_model_child_is_killed_under_load(it: Scene) -> None:
    # Given events in the queue and in the hands of the model child
    it.under_load()
    child = it.child("model")
    # When the model child is killed
    send(child, signal.SIGKILL)
    # Then it is gone, and the log names the signal
    until(lambda: gone(child), "the child is gone")
    assert "SIGKILL" in it.crash(reason="killed_by_sigkill")["cause"]
    # And its successor scores all that was in hand again
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}
    assert it.ledger.dead == {}
    assert it.child("model").pid != child.pid


def test_nothing_is_blamed_on_the_images_when_it_is_killed_three_times_in_a_row(it: Scene) -> None:
    it.under_load()
    killed = set()
    for _ in range(3):
        child = until(
            lambda: [each for each in it.children("model") if each.pid not in killed], "there is a model child to kill"
        )[0]
        send(child, signal.SIGKILL)
        killed.add(child.pid)
        until(partial(gone, child), "the child is gone")

    it.ledger.settle()

    assert it.ledger.statuses() == {"tagged"}
    assert len(it.logged("child crashed", reason="killed_by_sigkill")) == 3

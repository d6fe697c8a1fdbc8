"""Signals to a decoder: SIGKILL, a fault in native code, SIGSTOP. Its image is tried once more in another one."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import Scene

DEATHS = ("child killed by its work", "child killed from outside", "child crashed")
"""With an image in hand, by its own fault and by SIGKILL, and without."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_decoder_that_dies_once_costs_no_image_its_tags(it: Scene, number: signal.Signals) -> None:
    it.under_load()
    model, decoder = it.child("model"), it.child("decoder")

    send(decoder, number)

    until(lambda: gone(decoder), "the decoder is gone")
    until(
        lambda: any(number.name in line["cause"] for death in DEATHS for line in it.logged(death)), "its end is logged"
    )
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}
    # And the model child is not affected
    assert not gone(model)
    assert not [line for line in it.logged("child crashed") if line["child"].startswith("model")]


def test_a_stopped_decoder_is_killed_at_its_deadline_and_its_image_tagged_by_another(it: Scene) -> None:
    it.under_load()
    decoder = it.child("decoder")

    send(decoder, signal.SIGSTOP)

    until(lambda: decoder.status() == psutil.STATUS_STOPPED, "it is stopped", within_s=2)
    it.load(50)  # so that it is certain to get an image
    until(lambda: gone(decoder), "it was killed")
    until(lambda: it.logged("child killed by its work", reason="silent_while_busy"), "its end is logged")
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

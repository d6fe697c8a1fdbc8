"""Decoders that end again and again: while none runs, no events are taken and the service says so."""

from __future__ import annotations

import signal

from tests.support.polling import until
from tests.support.processes import send
from tests.support.scene import Scene


def test_while_no_decoder_runs_no_events_are_taken_and_it_says_why(it: Scene) -> None:
    # Given decoders that are killed until their relaunch is delayed
    def none_is_left() -> bool:
        for decoder in it.service.children("decoder"):
            send(decoder, signal.SIGKILL)
        return (it.service.status() or {}).get("reason") == "no_decoder"

    until(none_is_left, "it reports that no decoder is running", within_s=60)
    # When events come
    with_none = it.service.status() or {}
    it.load(30)
    assert not with_none["ready"]
    assert "no decoder is running" in with_none["why_not"]
    # Then they stay in their queue, as long as there is none
    assert with_none["broker"]["lanes"] == []
    # And when decoders run again, they are answered
    until(lambda: (it.service.status() or {}).get("ready"), "it takes events again", within_s=60)
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

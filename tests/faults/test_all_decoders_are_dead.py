"""Decoders that end again and again: while none runs, no events are taken and the service says so."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psutil

from tests.support.polling import until
from tests.support.scene import Scene


def test_while_no_decoder_runs_no_events_are_taken_and_it_says_why(it: Scene) -> None:
    # Given decoders that are killed until their relaunch is delayed
    def none_is_left() -> dict[str, Any] | None:
        for decoder in it.service.children("decoder"):
            with suppress(psutil.NoSuchProcess):  # the last SIGKILL may reach it only now
                decoder.kill()
        status = it.service.status() or {}
        # It says so at once, and RabbitMQ is asked to send no more events
        return status if status.get("reason") == "no_decoder" and status["broker"]["lanes"] == [] else None

    with_none = until(none_is_left, "it reports that no decoder is running, and takes no events", within_s=60)
    # When events come, then they stay in their queue, as long as there is none
    it.load(30)
    assert not with_none["ready"]
    assert "no decoder is running" in with_none["why_not"]
    # And when decoders run again, they are answered
    until(lambda: (it.service.status() or {}).get("ready"), "it takes events again", within_s=60)
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

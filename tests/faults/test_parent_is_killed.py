"""SIGKILL to the parent: nothing runs that could tidy up."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil

from tests.support.polling import until
from tests.support.processes import children_started_by
from tests.support.scene import QUICK, scene
from tests.support.service import Dms, running_service


def test_its_children_end_with_it_and_the_next_one_answers_every_event(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    # Given a service with events in hand, one of its children stopped and thereby deaf to any goodbye
    with scene(broker, queue_prefix, tmp_path / "first", photographs) as it:
        it.under_load(200)
        children = children_started_by(it.service.process.pid)
        assert len(children) >= 3, "a model, two decoders, and what these have forked"
        it.child("decoder").send_signal(signal.SIGSTOP)
        in_hand = (it.service.status() or {})["broker"]["unsettled"]
        assert in_hand > 0
        # When the parent is killed
        it.service.process.kill()
        assert it.service.process.wait(10) == -signal.SIGKILL
        # Then no child outlives it
        until(lambda: not any(map(psutil.Process.is_running, children)), "no orphan is left", within_s=10)
        ledger = it.ledger
        ledger.gather()
    # And another service on the same queues answers all that it had in hand
    roots = {"SOURCES__PATH_ROOTS": json.dumps([str(it.good.parent)])}
    with running_service(broker, queue_prefix, tmp_path / "second", **QUICK | roots) as second:
        ledger.dms = Dms(broker, queue_prefix)
        ledger.settle()
        ledger.dms.close()
        assert ledger.statuses() == {"tagged"}
        assert ledger.dead == {}
        assert second.stop() == 0


def test_a_control_socket_left_behind_does_not_keep_the_next_one_from_starting(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    with scene(broker, queue_prefix, tmp_path, photographs) as it:
        it.service.process.kill()
        it.service.process.wait(10)
    assert (tmp_path / "control.sock").exists()
    with running_service(broker, queue_prefix, tmp_path, **QUICK) as second:
        second.ready()
        assert second.stop() == 0

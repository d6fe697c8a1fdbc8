"""Children that are replaced on purpose, and spare children: no crash is counted, and no event waits for a start."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import scene

MAXIMUM_ROUNDS = 20


@pytest.mark.parametrize(
    "limit", [{"TENSORFLOW__IMAGES_PER_CHILD": "40"}, {"TENSORFLOW__MAXIMUM_MEMORY_BYTES": "1MiB"}], ids=str
)
def test_a_model_child_that_has_done_its_share_is_replaced_by_a_warm_one_and_no_crash_is_counted(
    limit: dict[str, str], broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    with scene(broker, queue_prefix, tmp_path, photographs, **limit) as it:
        left = (it.service.status() or {})["model"]["relaunches_left"]
        # Load until the successor has been replaced too: how many images pass while one starts depends on the machine
        for _ in range(MAXIMUM_ROUNDS):
            it.load(100)
            it.ledger.settle()
            ready = [line for line in it.logged("child ready") if line["child"].startswith("model")]
            if len(ready) >= 3:
                break
        assert it.ledger.statuses() == {"tagged"}
        assert len(ready) >= 3
        assert len({line["pid"] for line in ready}) == len(ready)
        # A child is stopped when its successor is ready, never before
        life = [line["event"] for line in lines_of_the_model(it.service.logged())]
        for number, event in enumerate(life):
            if event == "child stopped":
                assert life[:number].count("child ready") > life[: number + 1].count("child stopped")
        assert it.logged("child crashed") == []
        assert (it.service.status() or {})["model"]["relaunches_left"] == left


def lines_of_the_model(log: str) -> list[dict[str, str]]:
    """The log lines about model children that became ready or stopped, in order."""

    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    wanted = ("child ready", "child stopped")
    return [line for line in lines if line["event"] in wanted and line["child"].startswith("model")]


def test_with_a_spare_a_crash_costs_no_waiting(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    patient = {"TENSORFLOW__SPARE": "true", "TENSORFLOW__START_TIMEOUT_S": "120"}
    with scene(broker, queue_prefix, tmp_path, photographs, **patient) as it:
        # Given a spare model child, and a third child that hangs in its start for longer than all of this takes
        until(lambda: len(it.children("model")) == 2, "the spare is ready")
        it.faults.inject("start", "hang")
        it.load(60)
        busy = max(it.children("model"), key=lambda child: child.cpu_times().user)
        # When the one that works is killed
        send(busy, signal.SIGKILL)
        until(lambda: gone(busy), "it is gone")
        # Then the spare scores the rest while the third still hangs
        it.ledger.settle()
        assert it.ledger.statuses() == {"tagged"}
        until(it.faults.taken, "the third was launched")
        assert not it.logged("child crashed", reason="silent_while_starting")

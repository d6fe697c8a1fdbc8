"""The chaos run as an operator starts it on a test broker: all processes but the broker are killed at random."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow_fault
@pytest.mark.timeout(400)
def test_every_event_is_accounted_for_while_services_children_and_connections_are_killed(
    broker: str, photographs: dict[str, Path]
) -> None:
    directory = next(iter(photographs.values())).parent
    command = ["chaos", "--amqp", broker, "--events", "300", "--seed", "7", "--json", str(directory)]
    run = subprocess.run(
        [sys.executable, "-m", "worker", *command],
        env={name: value for name, value in os.environ.items() if name != "AUTOTAG_AMQP__URL"},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-4000:]
    assert "The broker itself is not killed" in run.stderr
    report = json.loads(run.stdout)
    assert report["sound"]
    assert (report["events"], report["lost"], report["differing_duplicates"]) == (300, 0, 0)
    assert set(report["kills"]) | set(report["left_out"]) == {"model_child", "decoder", "parent", "connection"}
    assert report["kills"] == report["kills_planned"]
    assert all(number == 6 for number in report["kills"].values())

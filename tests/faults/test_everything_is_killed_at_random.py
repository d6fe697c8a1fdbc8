"""The chaos run as an operator starts it on a test broker: all processes but the broker are killed at random."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.chaos_services import chaos_services

EVENTS, SEED = 200, 7


def run_chaos(broker: str, photographs: dict[str, Path], *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, report and standard error of `autotag chaos`."""
    directory = next(iter(photographs.values())).parent
    command = ["chaos", "--amqp", broker, "--seed", str(SEED), "--json", *options, str(directory)]
    run = subprocess.run(
        [sys.executable, "-m", "worker", *command],
        env={name: value for name, value in os.environ.items() if name != "AUTOTAG_AMQP__URL"},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert run.stdout, run.stderr[-4000:]
    return run.returncode, json.loads(run.stdout), run.stderr


@pytest.mark.slow_fault
@pytest.mark.timeout(400)
def test_every_event_has_one_right_end_while_services_children_and_connections_are_killed(
    broker: str, photographs: dict[str, Path]
) -> None:
    directory = next(iter(photographs.values())).parent
    with chaos_services(directory, SEED, EVENTS) as services:
        clouds = ("--google", services.google, "--microsoft", services.microsoft)
        status, report, errors = run_chaos(
            broker, photographs, *clouds, "--served", services.served, "--events", str(EVENTS)
        )
    assert (status, report["complaints"]) == (0, []), (report, errors[-4000:])
    assert report["sound"]
    assert report["missing"] == ["kills of RabbitMQ"]
    # Every event has one end, as it had to
    assert report["events"] == sum(report["ends"].values()) == EVENTS
    assert set(report["ends"]) == {"tagged", "skipped", "failed", "dead_lettered"}
    assert report["ends"]["tagged"] > EVENTS * 0.7
    assert not any(report["flaws"].values())
    # Every kind of fault happened, as often as it was asked for
    assert report["kills"] == report["kills_planned"]
    assert report["kills"] == dict.fromkeys(("model_child", "decoder", "parent", "connection"), 4) | {
        "model_disabled": 1
    }
    # While the model was disabled events waited, and none of them is lost
    assert report["waited_while_disabled"] > 0
    # And everything took part
    parts = ("lane live", "lane bulk", *(f"image by {kind}" for kind in ("path", "url", "base64", "body")))
    tenants = ("tenant local", "tenant strict", "tenant switched-off", "tenant both", "tenant cloud")
    assert all(report["took_part"][part] > 0 for part in (*parts, *tenants))


@pytest.mark.slow_fault
@pytest.mark.timeout(400)
def test_alone_it_reports_what_does_not_take_part_and_judges_the_rest(
    broker: str, photographs: dict[str, Path]
) -> None:
    status, report, errors = run_chaos(broker, photographs, "--events", "40", "--leave-out", "model_disabled")
    assert (status, report["complaints"]) == (0, []), (report, errors[-4000:])
    missing = ["Google Cloud Vision", "Microsoft's vision service", "images fetched by URL", "kills of RabbitMQ"]
    assert report["missing"] == [*missing, "faults of the kind model_disabled"]
    for each in missing:
        assert each in errors
    assert set(report["kills"]) == {"model_child", "decoder", "parent", "connection"}

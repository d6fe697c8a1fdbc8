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
NOT_KILLED = "kills of RabbitMQ (`make chaos` kills one)"


def run_chaos(broker: str, photographs: dict[str, Path], *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, report and standard error of `autotag chaos`."""
    directory = next(iter(photographs.values())).parent
    command = ["chaos", "--amqp", broker, "--seed", str(SEED), "--json", *options, directory.name]  # relative
    run = subprocess.run(
        [sys.executable, "-m", "worker", *command],
        cwd=directory.parent,
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
    # An operator's broker is not killed: that, and nothing else, keeps the run from being complete
    assert report["missing"] == [NOT_KILLED]
    # Every event has one end, as it had to
    assert report["events"] == sum(report["ends"].values()) == EVENTS
    assert set(report["ends"]) == {"tagged", "skipped", "failed", "dead_lettered"}
    assert report["ends"]["tagged"] > EVENTS * 0.7
    assert not any(report["flaws"].values())
    # Every kind of fault happened, as often as it was asked for
    assert report["kills"] == report["kills_planned"]
    assert report["kills"] == dict.fromkeys(("model_child", "decoder", "parent", "connection"), 4) | {
        "model_disabled": 1,
        "broker": 0,
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
    left_out = "0 of 0 faults of the kind model disabled happened: it was left out on request"
    assert (status, report["complaints"]) == (1, [left_out]), (report, errors[-4000:])
    assert not report["complete"]
    assert report["missing"] == [
        "Google Cloud Vision",
        "Microsoft's vision service",
        "images fetched by URL",
        NOT_KILLED,
    ]
    for each in (*report["missing"], "model disabled"):
        assert each in errors
    happened = {kind for kind, number in report["kills"].items() if number}
    assert happened == {"model_child", "decoder", "parent", "connection"}

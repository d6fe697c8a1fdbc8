"""The wall clock jumps back an hour under load: every deadline and interval is measured with the monotonic clock."""

from __future__ import annotations

import shutil
import signal
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import Scene, environment, scene

CLOCK_LIBRARY_SOURCE = Path(__file__).parents[1] / "support" / "clock_set_back.c"
INTERVAL_S = 4.0


@pytest.fixture(scope="module")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that sets the clock back for one process: a test must not set the machine's own."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler, which makes the library that sets the clock back")
    library = tmp_path_factory.mktemp("clock") / "clock_set_back.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, CLOCK_LIBRARY_SOURCE], check=True)
    return library


def kill_model(it: Scene, killed: set[int]) -> None:
    child = until(lambda: [each for each in it.children("model") if each.pid not in killed], "there is a model child")[
        0
    ]
    send(child, signal.SIGKILL)
    killed.add(child.pid)
    until(lambda: gone(child), "it is gone")


def test_no_event_is_lost_and_the_relaunch_rule_counts_as_before(
    clock_library: Path, broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    flag = tmp_path / "set-the-clock-back"
    rule = {
        "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "2",
        "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": str(INTERVAL_S),
    }
    with (
        environment(LD_PRELOAD=str(clock_library), CLOCK_SET_BACK=str(flag)),
        scene(broker, queue_prefix, tmp_path, photographs, **rule) as it,
    ):
        # Given two crashes before the clock is set back, the most that are relaunched
        killed: set[int] = set()
        it.under_load(200)
        kill_model(it, killed)
        kill_model(it, killed)
        # When it is set back
        before = it.lines()[-1]["timestamp"]
        flag.touch()
        it.load(20)
        until(lambda: when(it.lines()[-1]) < when({"timestamp": before}) - timedelta(minutes=50), "the log went back")
        # Then both crashes are forgotten when the interval has passed on the monotonic clock
        until(lambda: (it.service.status() or {})["model"]["relaunches_left"] == 2, "they are forgotten")
        kill_model(it, killed)
        until(lambda: len(it.logged("child crashed")) == 3, "the third crash is counted")
        assert (it.service.status() or {})["model"]["disabled"] is None
        # And all events have their tags
        it.ledger.settle()
        assert it.ledger.statuses() == {"tagged"}
        assert it.ledger.dead == {}


def when(line: dict[str, str]) -> datetime:
    return datetime.fromisoformat(line["timestamp"])

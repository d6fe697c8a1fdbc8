"""A container that may not start enough processes: one line with the number, instead of tracebacks later."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

Autotag = Callable[..., subprocess.CompletedProcess[str]]

IN_GROUP = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
LIMIT = 12


@pytest.fixture
def autotag(tmp_path: Path) -> Iterator[Autotag]:
    """Runs a command in a control group that may have few processes and threads."""
    hierarchy = next((each for each in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")) if each.is_dir()), None)
    group = (hierarchy or Path("/nowhere")) / f"autotag-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "pids.max").write_text(str(LIMIT))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group with a limit can be made here: {error}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    kept |= {"AUTOTAG_STATE_DIR": str(tmp_path), "AUTOTAG_CONTROL_SOCKET": str(tmp_path / "control")}
    kept |= {"AUTOTAG_AMQP__URL": "amqp://127.0.0.1:1/", "AUTOTAG_HTTP__PORT": "0"}
    kept |= {"AUTOTAG_DEFAULTS__TENSORFLOW__ENABLED": "true"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", "-c", IN_GROUP, str(group), sys.executable, "-P", "-m", "worker", *words]
        return subprocess.run(command, env=kept, capture_output=True, text=True, timeout=100, check=False)

    yield run
    deadline_s = time.monotonic() + 20
    while True:  # its last process may be a zombie for a moment
        try:
            group.rmdir()
        except OSError:
            assert time.monotonic() < deadline_s, "the control group cannot be removed"
            time.sleep(0.05)
        else:
            break


@pytest.mark.parametrize("words", [["tag", __file__], ["run"]], ids=["tag", "run"])
def test_a_command_that_needs_children_ends_with_the_number_that_is_needed(autotag: Autotag, words: list[str]) -> None:
    done = autotag(*words)
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "more processes and threads (pids.max of its control group), and at least" in said
    assert "TasksMax=" in said
    assert "Traceback" not in said


def test_the_check_says_it_too(autotag: Autotag) -> None:
    done = autotag("check")
    line = next(each for each in done.stdout.splitlines() if " tasks " in each)
    assert line.startswith("✗")
    assert "Traceback" not in done.stdout + done.stderr

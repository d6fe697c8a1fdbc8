"""An interpreter that cannot be run: commands that need a child end with the cause instead of waiting for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

START = "import sys; sys.executable = {!r}; sys.argv = ['autotag', *sys.argv[1:]]; from worker.cli import main; main()"


@pytest.mark.parametrize(
    ("interpreter", "cause"),
    [("/etc/passwd", "could not be started: [Errno 13]"), ("/bin/false", "ended by itself with exit code 1")],
    ids=["not executable", "ends at once"],
)
def test_tagging_and_checking_end_with_the_cause(
    tmp_path: Path, photographs: dict[str, Path], interpreter: str, cause: str
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    kept |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
    kept |= {"AUTOTAG_STATE_DIR": str(tmp_path), "AUTOTAG_AMQP__URL": "amqp://127.0.0.1:1/"}

    def autotag(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-c", START.format(interpreter), *words],
            env=kept,
            capture_output=True,
            text=True,
            timeout=50,  # before, the first of these commands never ended
            check=False,
        )

    began_s = time.monotonic()
    tagged = autotag("tag", "--model", "efficientnet-lite0", str(photographs["coffee"]))
    assert tagged.returncode == 1, tagged.stderr
    assert f"autotag: no decoder child can start: {cause}" in tagged.stderr
    checked = autotag("check")
    line = next(each for each in checked.stdout.splitlines() if "decoder" in each)
    assert line.startswith("✗")
    assert cause in line
    assert time.monotonic() - began_s < 90, "each would otherwise have waited for 60 s"

"""The service's environment and memory hold passwords: another process of its user cannot read them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.polling import until

ROOT = Path(__file__).parents[2]

_SETTINGS = {
    "AUTOTAG_AMQP__URL": "amqp://127.0.0.1:9",
    "AUTOTAG_AMQP__PASSWORD": "correct-horse",
    "AUTOTAG_HTTP__ENABLED": "false",
}

# Root may look at everything: to stand for any other user, it gives up its capabilities, and what it starts has none.
_LIKE_A_USER = "from worker.children import sandbox; assert sandbox._no_new_privileges(); sandbox._drop_capabilities()"

_START = f"import os, sys; {_LIKE_A_USER}; os.execv(sys.argv[1], sys.argv[1:])"

_LOOK = f"""
import sys
{_LIKE_A_USER}
for name in ("environ", "mem", "maps"):
    try:
        open(f"/proc/{{sys.argv[1]}}/{{name}}", "rb").read(0)
    except PermissionError:
        continue
    print(name)
"""


@contextmanager
def running(*command: str, directory: Path) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *command],
        cwd=directory,
        env=os.environ | _SETTINGS | {"PYTHONPATH": str(ROOT), "AUTOTAG_STATE_DIR": str(directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def readable(pid: int) -> set[str]:
    """What another process of the same user can read of a process."""
    done = subprocess.run([sys.executable, "-c", _LOOK, str(pid)], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def runs(pid: int, command: tuple[str, ...]) -> bool:
    """Whether the command has replaced the process that was started to give up capabilities, and has not ended."""
    return Path(f"/proc/{pid}/cmdline").read_bytes() == b"".join(word.encode() + b"\0" for word in command)


def test_another_process_of_the_user_reads_nothing_of_the_service(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "worker", "run")
    with running(*command, directory=tmp_path) as pid:
        until((tmp_path / "control.sock").exists, "it has started", within_s=60)
        assert readable(pid) == set()
        assert runs(pid, command)


def test_it_can_be_left_open_for_an_examination(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "worker", "--traceable", "run")
    with running(*command, directory=tmp_path) as pid:
        until((tmp_path / "control.sock").exists, "it has started", within_s=60)
        assert readable(pid) == {"environ", "mem", "maps"}


def test_of_any_other_program_it_could(tmp_path: Path) -> None:
    command = ("/bin/sleep", "600")
    with running(*command, directory=tmp_path) as pid:
        until(lambda: runs(pid, command), "it runs", within_s=30)
        assert readable(pid) == {"environ", "mem", "maps"}, "otherwise a denial would prove nothing"

"""Processes that must not outlive whoever asked for them.

`ThirdPartyProvider` is the asking side. It runs this file as a process of its own, the guardian:

    guardian.py DIRECTORY [FAREWELL…]

Each line on the guardian's standard input is a request, {"argv": […], "env": {…}, "log": "file"}, and is answered by
{"pid": N}. Standard input is the lifeline: the kernel closes it when the asking process ends, for whatever reason,
SIGKILL included. Then the guardian kills all that it started and all that this left behind, runs the command FAREWELL
if there is one, removes DIRECTORY, and ends. Should somebody kill the guardian, the kernel kills what it started.

A death signal set by the asking process alone would be simpler, but Linux sends it when the *thread* that started the
child ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLOSE_TIMEOUT_S = 60.0


class ThirdPartyProvider:
    """Processes that end when this process does, at the latest; `close` ends them now."""

    def __init__(self, directory: Path, farewell: Sequence[str] = ()) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(directory), *farewell],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal is for us, not for what is guarded
        )

    def spawn(self, argv: Sequence[str], env: dict[str, str], log: Path) -> int:
        """Start a process, its output appended to `log`; returns its process id, which is its session's id as well.

        Raises ConnectionError when the guardian is gone, and with it what it guarded.
        """
        request = json.dumps({"argv": list(argv), "env": env, "log": str(log)})
        try:
            print(request, file=self._process.stdin, flush=True)
            return int(json.loads(self._process.stdout.readline() if self._process.stdout else "")["pid"])
        except (OSError, ValueError) as error:
            raise ConnectionError(f"Guardian {self._process.pid} has ended, and all it guarded.") from error

    def close(self) -> None:
        """End everything that was started and remove the directory; returns when that is done."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=CLOSE_TIMEOUT_S)
        shutil.rmtree(self._directory, ignore_errors=True)  # in case somebody killed the guardian


def prctl(option: int, value: int) -> None:
    """Call prctl(2) for this process; raises OSError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def spawn(argv: list[str], env: dict[str, str], log: str) -> int:
    """Start a process in a session of its own, its output appended to the file `log`; returns its process id.

    Plain fork and exec: `subprocess` would compete with `reap` for the children's exit statuses.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvpe(argv[0], argv, env)  # noqa: S606 - an argument list of our own, no shell wanted
    finally:
        os._exit(127)  # exec failed: nothing above this frame may run a second time in the child


def reap(*_: object) -> bool:
    """Collect every child that has ended; false when no child is left at all."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def own_children() -> list[int]:
    """Process ids of the direct children and of the orphans that former children left: a subreaper inherits these."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the program's name, which may hold spaces and brackets: state, parent, …
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # ended while we looked
        if parent == os.getpid():
            found.append(int(stat.parent.name))
    return found


def kill_everything() -> None:
    """SIGKILL children until none is left; each round reaches the ones that the last round made orphans."""
    while reap():
        for pid in own_children():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def main() -> NoReturn:
    """Serve requests until the lifeline closes, then leave nothing behind."""
    directory, *farewell = sys.argv[1:]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps({"pid": spawn(request["argv"], request["env"], request["log"])}), flush=True)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kill_everything()
        if farewell:
            subprocess.run(farewell, check=False, capture_output=True, timeout=30)
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0)


if __name__ == "__main__":
    main()

"""Processes that must not outlive the process that requested them.

`GuardedProcesses` is the client. It runs this file as a separate process, the guardian:

    guardian.py DIRECTORY [CLEANUP…]

Each line on the guardian's standard input is a request, {"argv": […], "env": {…}, "log": "file"}, and its reply is
{"pid": N}. The kernel closes standard input when the client ends, for whatever reason, SIGKILL included. The guardian
then kills all processes that it started and their orphans, runs the command CLEANUP if there is one, removes DIRECTORY,
and exits. If the guardian itself is killed, the kernel kills the processes that it started.

A death signal set by the client would be simpler, but Linux sends it when the *thread* that started the child ends.
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


class GuardedProcesses:
    """Processes that end when this one does, at the latest; `close` ends them at once.

    `directory` is removed at the end, after the command `cleanup` has run.
    """

    def __init__(self, directory: Path, cleanup: Sequence[str] = ()) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(directory), *cleanup],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal must not reach the guarded processes
        )

    def spawn(self, argv: Sequence[str], env: dict[str, str], log: Path) -> int:
        """Start a process with its output appended to `log`; returns its process id, which is its session id too.

        Raises ConnectionError when the guardian has ended, and with it the guarded processes.
        """
        request = json.dumps({"argv": list(argv), "env": env, "log": str(log)})
        try:
            print(request, file=self._process.stdin, flush=True)
            return int(json.loads(self._process.stdout.readline() if self._process.stdout else "")["pid"])
        except (OSError, ValueError) as error:
            raise ConnectionError(f"Guardian {self._process.pid} has ended, and all it guarded.") from error

    def close(self) -> None:
        """Kill all processes, run the cleanup command, remove the directory; returns when that is done."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=CLOSE_TIMEOUT_S)
        shutil.rmtree(self._directory, ignore_errors=True)  # in case the guardian was killed


def prctl(option: int, value: int) -> None:
    """Call prctl(2) for this process. Raises OSError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def spawn(argv: list[str], env: dict[str, str], log: str) -> int:
    """Start a process in a session of its own, with its output appended to the file `log`; returns its process id.

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
        os.execvpe(argv[0], argv, env)  # noqa: S606 - an argument list of our own, no shell is wanted
    finally:
        os._exit(127)  # exec failed: no caller's code may run a second time, in the child


def reap(*_: object) -> bool:
    """Reap every child that has ended; returns false if no child is left at all."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def own_children() -> list[int]:
    """Process ids of the direct children, and of orphans of former children, which a subreaper inherits."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the program's name, which may contain spaces and brackets: state, parent, …
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # ended meanwhile
        if parent == os.getpid():
            found.append(int(stat.parent.name))
    return found


def kill_everything() -> None:
    """Kill children until none is left; each round reaches the orphans that the round before created."""
    while reap():
        for pid in own_children():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def main() -> NoReturn:
    """Serve requests until standard input is closed, then clean up."""
    directory, *cleanup = sys.argv[1:]
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
        if cleanup:
            subprocess.run(cleanup, check=False, capture_output=True, timeout=30)
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0)


if __name__ == "__main__":
    main()

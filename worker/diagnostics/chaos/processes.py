"""The workers of a chaos run, which are real `autotag run` processes, and the faults injected into them.

Each fault is verified: the process is checked before and after it through a pidfd, which unlike a process id cannot
denote another process later.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.errors import TryLater
from worker.operations.control import send_command
from worker.operations.health.status import Status
from worker.supervision.interpreter import module_command
from worker.supervision.lifecycle import WORKING_PHASE_NAMES

_SYS_PIDFD_GETFD = 438
"""The same on every architecture (https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html)."""

_PR_SET_PDEATHSIG = 1
_EXIT_TIMEOUT_S = 10.0


class WorkerProcess:
    """One `autotag run`. May be started again after it was killed; all its files are in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self._log = folder / "log.jsonl"
        self._socket = folder / "control.sock"
        self._environment = {
            **environment,
            "AUTOTAG_CONTROL_SOCKET": str(self._socket),
            "AUTOTAG_STATE_DIR": str(folder / "state"),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def running(self) -> bool:
        """Whether its parent process is running."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process, with the settings in its environment."""
        self.starts += 1
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*module_command("worker"), "--traceable", "run"],  # or `cut_connections` could not reach into it
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for the chaos run, which then stops its workers
                preexec_fn=_stop_with(os.getpid()),  # noqa: PLW1509 - it only makes system calls
            )

    async def status(self) -> Status | None:
        """The status that its control socket replies with; None while the socket does not reply."""
        try:
            return Status.from_json(await send_command(self._socket, "status"))
        except TryLater:
            return None

    async def reset(self) -> Status:
        """What `autotag reset` does. Raises TryLater while the control socket does not reply."""
        return Status.from_json(await send_command(self._socket, "reset"))

    async def kill(self) -> bool:
        """Send SIGKILL to the parent process; returns whether it was running and ended by that signal."""
        if self.process is None or not self.running:
            return False
        self.process.kill()
        return await asyncio.to_thread(self.process.wait, _EXIT_TIMEOUT_S) == -signal.SIGKILL

    async def stop(self, within_s: float) -> int | None:
        """Send SIGTERM; returns the exit status, or None if it was not running or had to be killed after `within_s`."""
        if self.process is None:
            return None
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            return await asyncio.to_thread(self.process.wait, within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    @property
    def log_tail(self) -> str:
        """The last 2000 characters of its log."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""


def children_at_work(status: Status, kind: str) -> list[int]:
    """Process ids of the children of a kind (`model`, `decoder`) that have answered.

    What a child's predecessor had in hand is given to it first, and is done by then: no image is in hand whenever a
    child is killed, which would look like the image's fault.
    """
    return [
        each.pid
        for each in status.children
        if each.name.startswith(kind)
        and each.phase in WORKING_PHASE_NAMES
        and each.pid is not None
        and each.images_done
    ]


def model_pids(status: Status) -> list[int]:
    """Process ids of the model children, those that are starting included."""
    return [each.pid for each in status.children if each.name.startswith("model") and each.pid is not None]


def _stop_with(parent_pid: int) -> Callable[[], None]:
    """A `preexec_fn` that has the kernel send SIGTERM to the new process when this one dies."""
    libc = ctypes.CDLL(None)

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent_pid:  # this process died before the line above
            os._exit(1)

    return set_death_signal


async def kill_child(pid: int) -> bool:
    """Send SIGKILL to a child process of a worker; returns whether it was running and ended within 10 s."""
    with _pidfd(pid) as pidfd:
        if pidfd is None or not _is_worker_child(pid) or _has_exited(pidfd):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        deadline_s = time.monotonic() + _EXIT_TIMEOUT_S
        while not _has_exited(pidfd):
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(0.01)
    return True


def cut_connections(pid: int, port: int) -> int:
    """Shut down a process's TCP connections to a port, as a network failure would; returns how many.

    Raises PermissionError where the kernel does not allow the use of another process's descriptors.
    """
    cut = 0
    with _pidfd(pid) as pidfd:
        if pidfd is None:
            return 0
        for fd in _socket_descriptors(pid):
            with _duplicate(pidfd, fd) as sock:
                if sock is not None and _is_connected_to(sock, port):
                    with suppress(OSError):  # closed meanwhile by its owner
                        sock.shutdown(socket.SHUT_RDWR)
                        cut += 1
    return cut


@contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _has_exited(pidfd: int) -> bool:
    waiting = select.poll()  # select.select takes no descriptor beyond 1,023
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(0))


def _is_worker_child(pid: int) -> bool:
    try:
        return b"worker.children." in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _socket_descriptors(pid: int) -> list[int]:
    descriptors = []
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(entry).startswith("socket:"):
                    descriptors.append(int(entry.name))
    return descriptors


@contextmanager
def _duplicate(pidfd: int, fd: int) -> Iterator[socket.socket | None]:
    """A duplicate of another process's socket; None when the socket is closed already. Raises PermissionError."""
    libc = ctypes.CDLL(None, use_errno=True)
    ours = libc.syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
    if ours < 0:
        number = ctypes.get_errno()
        if number in (errno.EPERM, errno.ENOSYS):
            raise PermissionError(number, os.strerror(number))
        yield None
        return
    try:
        sock = socket.socket(fileno=ours)
    except OSError:  # the number denotes another file by now
        os.close(ours)
        yield None
        return
    with sock:
        yield sock


def _is_connected_to(sock: socket.socket, port: int) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return False
    try:
        return int(sock.getpeername()[1]) == port
    except OSError:
        return False

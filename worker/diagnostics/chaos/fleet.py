"""The workers of a chaos run: real `autotag run` processes, and the blows that fall upon them.

Every blow is proven: the process is looked at before and after through a descriptor that stands for it alone, so that
its number cannot have come to mean another.
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
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.errors import TryLater
from worker.operations.control import send_command
from worker.operations.health.status import Status

_SYS_PIDFD_GETFD = 438
"""The same on every architecture (https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html)."""

_PR_SET_PDEATHSIG = 1
_GONE_WITHIN_S = 10.0
_WORKING = ("ready", "busy", "checking")


class Worker:
    """One `autotag run`, started again whenever it has been killed."""

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
        """Whether its parent process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it."""
        self.starts += 1
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker", "run"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for the run, which then ends its workers
                preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - it only makes system calls
            )

    async def status(self) -> Status | None:
        """What it says of itself; None while it is not there to say anything."""
        try:
            return Status.from_json(await send_command(self._socket, "status"))
        except TryLater:
            return None

    async def children(self, kind: str) -> list[int]:
        """Process ids of its children of a kind (`model`, `decoder`) that have started."""
        status = await self.status()
        return [
            each.pid
            for each in (status.children if status is not None else ())
            if each.name.startswith(kind) and each.phase in _WORKING and each.pid is not None
        ]

    async def kill(self) -> bool:
        """SIGKILL to the parent process; whether it was alive, and ended of it."""
        if self.process is None or not self.running:
            return False
        self.process.kill()
        return await asyncio.to_thread(self.process.wait, _GONE_WITHIN_S) == -signal.SIGKILL

    async def stop(self, within_s: float) -> int | None:
        """Ask it to stop; its exit status, or None if it had to be killed."""
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
    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""


def _end_with(parent_pid: int) -> Callable[[], None]:
    """For a process about to be started: have the kernel ask it to stop when this one dies."""
    libc = ctypes.CDLL(None)

    def ask_for_it() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)

    return ask_for_it


async def kill_child(pid: int) -> bool:
    """SIGKILL to a child; whether it was alive as a child of ours, and ended."""
    with _pidfd(pid) as pidfd:
        if pidfd is None or not _is_child(pid) or _ended(pidfd):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        deadline_s = time.monotonic() + _GONE_WITHIN_S
        while not _ended(pidfd):
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(0.01)
    return True


def cut_connections(pid: int, port: int) -> int:
    """Shut down a process's TCP connections to a port, from outside, as if the network had; returns how many.

    Raises `PermissionError` where the kernel does not let us reach into another process.
    """
    cut = 0
    with _pidfd(pid) as pidfd:
        if pidfd is None:
            return 0
        for fd in _socket_descriptors(pid):
            with _taken(pidfd, fd) as sock:
                if sock is not None and _leads_to(sock, port):
                    with suppress(OSError):  # closed in this very moment by its owner
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


def _ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


def _is_child(pid: int) -> bool:
    try:
        return b"worker.children." in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _socket_descriptors(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(link).startswith("socket:"):
                    found.append(int(link.name))
    return found


@contextmanager
def _taken(pidfd: int, fd: int) -> Iterator[socket.socket | None]:
    """Our own descriptor of another process's socket; None when it is closed already."""
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
    except OSError:  # its number has come to mean another file since we looked
        os.close(ours)
        yield None
        return
    with sock:
        yield sock


def _leads_to(sock: socket.socket, port: int) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return False
    try:
        return int(sock.getpeername()[1]) == port
    except OSError:
        return False

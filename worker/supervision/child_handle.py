"""The parent's end of one child process: its socket, what it prints, its exit. It decides nothing.

What happens is told through `ChildListener`, always from the event loop and in the order in which it happened: all
that the child still said is told before its end. The child leads a process group of its own, and when it ends
whatever is left of the group is killed before the child is reaped: until then its number cannot belong to anybody else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from worker.supervision import packets
from worker.supervision.child_output import ChildOutput
from worker.supervision.lifecycle import Cause
from worker.supervision.packets import Packet, ProtocolError

INHERITED_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
    "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""All that a child learns of the parent's environment, which may hold keys and passwords."""

_READ_BYTES = 64 << 10
_LONGEST_DRAIN_READS = 16


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run. `settings` is the first packet's content; `environment` comes on top of the inherited variables.

    The command gets two more arguments: the number of its socket's descriptor, and the parent's process id.
    """

    command: tuple[str, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def module(
        cls, name: str, settings: Mapping[str, object], environment: Mapping[str, str] | None = None
    ) -> ChildSpec:
        """A Python module, run by this interpreter, with a fault handler so that a crash leaves its stack."""
        return cls((sys.executable, "-X", "faulthandler", "-m", name), settings, environment or {})


class ChildListener(Protocol):
    """Who is told what the child does. After `ended` nothing more is told."""

    def heard(self, packet: Packet) -> None:
        """The child has sent a well-formed packet."""

    def broke(self, cause: Cause) -> None:
        """The child has sent something else."""

    def closed(self) -> None:
        """The child has closed its socket."""

    def ended(self, cause: Cause, illegal_instruction: bool) -> None:
        """The child has ended and been reaped; its process group is gone."""


class ChildHandle:
    """One running child. Making one starts it; make it on the main thread, where the event loop runs.

    The thread matters: the kernel ends the child when the thread that started it ends (PR_SET_PDEATHSIG).
    """

    def __init__(self, name: str, spec: ChildSpec, listener: ChildListener) -> None:
        """Start the process. Raises `OSError` when the system does not give us one."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = packets.socket_pair()
        try:
            with theirs:
                self._process, self._pidfd = _popen(spec, theirs.fileno())
        except OSError:
            self._socket.close()
            raise
        assert self._process.stdout is not None  # noqa: S101 - asked for with PIPE
        self._output = self._process.stdout
        self._printed = ChildOutput(name, self.pid)
        os.set_blocking(self._output.fileno(), False)
        self._loop.add_reader(self._socket, self._on_packet)
        self._loop.add_reader(self._output, self._on_output)
        self._loop.add_reader(self._pidfd, self._on_exit)
        with suppress(OSError):  # one that is gone already is told of by its exit
            self.send(packets.pack("begin", spec.settings))

    @property
    def pid(self) -> int:
        """The process id, which is the process group's too."""
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Resident memory now; 0 when the process has just gone."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0

    @property
    def last_lines(self) -> list[str]:
        """What the child printed last."""
        return self._printed.last_lines

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a packet. Raises `OSError` when the child has gone or has stopped reading.

        A child has few jobs and one stop packet outstanding at most, so a socket that is full is a fault of the child.
        """
        packets.send(self._socket, data, fds)

    def kill(self) -> None:
        """SIGKILL to the whole process group; the end is told when it has come. Harmless when there is none left."""
        if self._process.returncode is None:  # once reaped, the number may belong to somebody else
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def destroy(self) -> None:
        """Kill and reap at once, telling nobody: for when the event loop itself is about to end."""
        self.kill()
        self._reap()

    def _on_packet(self) -> None:
        """Read one packet: the next only in another turn of the loop, so that a flood cannot hold the loop up."""
        try:
            received = packets.receive(self._socket, maximum_fds=0)
        except (BlockingIOError, ConnectionResetError):
            return  # reset: it died with something unread; what it had said before can still be read
        except ProtocolError as error:
            self._deafen()
            self._listener.broke(Cause("protocol_broken", f"protocol broken: it sent {error}"))
            return
        except OSError:
            received = None
        if received is None:
            self._deafen()
            self._listener.closed()
        else:
            self._listener.heard(received[0])

    def _on_output(self) -> None:
        try:
            data = os.read(self._output.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._printed.feed(data, time.monotonic())
        else:
            self._loop.remove_reader(self._output)

    def _on_exit(self) -> None:
        """The child is a zombie: take in what it still said, end its group, reap it, tell."""
        for _ in range(_LONGEST_DRAIN_READS):
            self._on_output()
        self._printed.finish(time.monotonic())
        self._hear_the_last()
        self.kill()
        returncode = self._reap()
        self._listener.ended(describe_exit(returncode), returncode == -signal.SIGILL)

    def _hear_the_last(self) -> None:
        """The answers to its jobs may still lie in the socket. It is dead, so they come to an end."""
        if not self._loop.remove_reader(self._socket):
            return
        with suppress(OSError, ProtocolError):
            while True:
                try:
                    received = packets.receive(self._socket, maximum_fds=0)
                except ConnectionResetError:  # told once, before what it had said
                    continue
                if received is None:
                    return
                self._listener.heard(received[0])

    def _reap(self) -> int:
        if self._process.returncode is not None:
            return self._process.returncode
        for source in (self._pidfd, self._output, self._socket):
            self._loop.remove_reader(source)
        returncode = self._process.wait()
        os.close(self._pidfd)
        self._output.close()
        self._socket.close()
        return returncode

    def _deafen(self) -> None:
        self._loop.remove_reader(self._socket)


def describe_exit(returncode: int) -> Cause:
    """Why a child that nobody had asked to end has ended, in words."""
    if returncode >= 0:
        return Cause("exited", f"ended by itself with exit code {returncode}")
    name, hint = f"SIG{-returncode}", None
    with suppress(ValueError):  # a real-time signal has no name
        number = signal.Signals(-returncode)
        name, hint = number.name, _HINTS.get(number)
    return Cause(f"killed_by_{name.lower()}", f"killed by {name}" + (f": {hint}" if hint else ""))


_HINTS = {
    signal.SIGKILL: "perhaps out of memory?",
    signal.SIGSEGV: "a fault in native code",
    signal.SIGBUS: "a fault in native code, or a file that shrank while it was read",
    signal.SIGABRT: "native code gave up",
    signal.SIGILL: "an instruction that this processor does not have",
    signal.SIGFPE: "an arithmetic fault in native code",
    signal.SIGXCPU: "more processor time than one job is allowed",
}


def _popen(spec: ChildSpec, socket_fd: int) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and a descriptor that becomes readable when it ends."""
    environment = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    process = subprocess.Popen(
        [*spec.command, str(socket_fd), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment | {"PYTHONUNBUFFERED": "1"} | dict(spec.environment),
        pass_fds=(socket_fd,),
        start_new_session=True,
        bufsize=0,
    )
    try:
        return process, os.pidfd_open(process.pid)
    except OSError:
        with process:
            process.kill()
        raise

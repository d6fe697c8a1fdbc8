"""The parent's end of one child process: its socket, its output and its exit. It makes no decisions.

Events are reported through `ChildListener`, always from the event loop and in the order in which they happened: packets
that are still in the socket are delivered before the exit. The child leads a process group of its own, and when it
exits the rest of the group is killed before the child is reaped: until then the kernel cannot reuse its process id.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from worker.errors import exhausted
from worker.supervision import packets
from worker.supervision.cgroup import out_of_memory_kills
from worker.supervision.child_output import ChildOutput
from worker.supervision.interpreter import WORKING_DIRECTORY, module_command, safe_import_path
from worker.supervision.lifecycle import Cause
from worker.supervision.packets import Packet, ProtocolError

INHERITED_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
    "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""The only variables a child gets from the parent's environment, which may hold keys and passwords."""

KILLED_FROM_OUTSIDE = "killed_by_sigkill"
"""The reason of a death by a SIGKILL that the parent did not send: the kernel's, when memory ran out, or a person's.

A death at one of our deadlines has the deadline's reason. No fault of a child's own, and no limit but the hard one of
processor time, which is never set, ends in SIGKILL.
"""

_READ_BYTES = 64 << 10
_MAXIMUM_DRAIN_READS = 16
_UNTIL_ADOPTED_S = 1.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run. `settings` are sent in the first packet; `environment` is added to the inherited variables.

    The command gets two more arguments: the number of its socket's descriptor, and the parent's process id.
    """

    command: tuple[str, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def module(
        cls, name: str, settings: Mapping[str, object], environment: Mapping[str, str] | None = None
    ) -> ChildSpec:
        """A Python module, run by this interpreter, with the fault handler on so that a crash prints its stack."""
        return cls(module_command(name, "-X", "faulthandler"), settings, environment or {})


class ChildListener(Protocol):
    """Callbacks for the events of one child. None is called after `on_exit`."""

    def on_packet(self, packet: Packet) -> None:
        """The child has sent a well-formed packet."""

    def on_protocol_error(self, cause: Cause) -> None:
        """The child has sent something that is not a packet. Its socket is not read any more."""

    def on_closed(self) -> None:
        """The child has closed its socket."""

    def on_exit(self, cause: Cause, illegal_instruction: bool) -> None:
        """The child has exited and been reaped; its process group is gone."""


class ChildHandle:
    """One running child. The constructor starts it; call it on the main thread, where the event loop runs.

    The thread matters: the kernel kills the child when the thread that started it ends (PR_SET_PDEATHSIG).
    """

    def __init__(self, name: str, spec: ChildSpec, listener: ChildListener) -> None:
        """Start the process. Raises `OSError` when the system cannot."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._socket, child_end = packets.socket_pair()
        try:
            with child_end:
                self._process, self._pidfd = _popen(spec, child_end.fileno())
        except OSError:
            self._socket.close()
            raise
        assert self._process.stdout is not None  # noqa: S101 - requested with PIPE
        self._stdout = self._process.stdout
        self._output = ChildOutput(name, self.pid)
        self._out_of_memory_kills = out_of_memory_kills()
        os.set_blocking(self._stdout.fileno(), False)
        self._loop.add_reader(self._socket, self._on_socket_readable)
        self._loop.add_reader(self._stdout, self._on_stdout_readable)
        self._loop.add_reader(self._pidfd, self._on_process_exit)
        try:
            self.send(packets.pack("begin", spec.settings))
        except OSError as error:
            if exhausted(error) is not None:  # it would wait for the packet until its deadline
                self.kill_and_reap()
                raise
            # It has died already: its exit will be reported.

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Resident memory now, its children's own included; 0 when the process has just exited."""
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as children:
                forked = children.read().split()
        except OSError:
            forked = []
        return _resident_bytes(self.pid) + sum(_private_bytes(int(pid)) for pid in forked)

    @property
    def last_lines(self) -> list[str]:
        """The last lines that the child printed."""
        return self._output.last_lines

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a packet. Raises `OSError` when the child has exited or has stopped reading.

        A child has few jobs and at most one stop packet outstanding, so a full socket is a fault of the child.
        """
        packets.send(self._socket, data, fds)

    def kill(self) -> None:
        """Send SIGKILL to the whole process group; `on_exit` follows. Has no effect after the child was reaped."""
        if self._process.returncode is None:  # once reaped, the id may belong to another process
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill_and_reap(self) -> None:
        """Kill and wait, blocking, without a callback: for when the event loop itself is about to end."""
        self.kill()
        self._reap()

    def _on_socket_readable(self) -> None:
        """Read one packet; the next one in another iteration of the loop, so that a flood cannot block the loop."""
        try:
            received = packets.receive(self._socket, maximum_fds=0)
        except (BlockingIOError, ConnectionResetError):
            return  # reset: it died with unread data; what it had sent before can still be read
        except ProtocolError as error:
            self._stop_reading()
            self._listener.on_protocol_error(protocol_broken(error))
            return
        except OSError:
            received = None
        if received is None:
            self._stop_reading()
            self._listener.on_closed()
        else:
            self._listener.on_packet(received[0])

    def _on_stdout_readable(self) -> None:
        try:
            data = os.read(self._stdout.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._output.feed(data, time.monotonic())
        else:
            self._loop.remove_reader(self._stdout)

    def _on_process_exit(self) -> None:
        """The child is a zombie: read its last output and packets, kill its group, reap it, report the exit."""
        for _ in range(_MAXIMUM_DRAIN_READS):
            self._on_stdout_readable()
        self._output.finish(time.monotonic())
        self._drain_socket()
        self.kill()
        returncode = self._reap()
        out_of_memory = returncode == -signal.SIGKILL and out_of_memory_kills() > self._out_of_memory_kills
        cause = describe_exit(returncode, out_of_memory=out_of_memory)
        self._listener.on_exit(cause, returncode == -signal.SIGILL)

    def _drain_socket(self) -> None:
        """Answers to its jobs may still be in the socket. The child is dead, so this loop ends."""
        if not self._loop.remove_reader(self._socket):
            return
        with suppress(OSError, ProtocolError):
            while True:
                try:
                    received = packets.receive(self._socket, maximum_fds=0)
                except ConnectionResetError:  # raised once, before the packets that it had sent
                    continue
                if received is None:
                    return
                self._listener.on_packet(received[0])

    def _reap(self) -> int:
        if self._process.returncode is not None:
            return self._process.returncode
        for source in (self._pidfd, self._stdout, self._socket):
            self._loop.remove_reader(source)
        returncode = self._process.wait()
        os.close(self._pidfd)
        self._stdout.close()
        self._socket.close()
        self._reap_adopted()
        return returncode

    def _reap_adopted(self) -> None:
        """Where this process is the first of a container, it inherits what its children have forked and left behind."""
        _reap_group(self.pid)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_later(_UNTIL_ADOPTED_S, _reap_group, self.pid)

    def _stop_reading(self) -> None:
        self._loop.remove_reader(self._socket)


def _reap_group(group: int) -> None:
    """Reap the members of a process group that have ended and are this process's own by now."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def _resident_bytes(pid: int) -> int:
    """Of a process; 0 when it has exited."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _private_bytes(pid: int) -> int:
    """What a process shares with no other, as it does most with the one that has forked it; 0 when it has exited."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
            return sum(int(line.split()[1]) << 10 for line in rollup if line.startswith(b"Private_"))
    except (OSError, IndexError, ValueError):
        return 0


def protocol_broken(sent: object) -> Cause:
    """The cause of killing a child that violated the protocol; `sent` describes what it sent."""
    return Cause("protocol_broken", f"protocol broken: it sent {sent}")


def describe_exit(returncode: int, *, out_of_memory: bool = False) -> Cause:
    """The cause of an exit that was not requested; `returncode` as of `subprocess`: negative for a signal.

    `out_of_memory`: the kernel has killed a process of our control groups for that reason meanwhile.
    """
    if returncode >= 0:
        return Cause("exited", f"ended by itself with exit code {returncode}")
    name, hint = f"SIG{-returncode}", None
    with suppress(ValueError):  # a real-time signal has no name
        number = signal.Signals(-returncode)
        name, hint = number.name, "by the kernel, out of memory" if out_of_memory else _HINTS.get(number)
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
    inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    environment = safe_import_path(inherited | dict(spec.environment))
    process = subprocess.Popen(
        [*spec.command, str(socket_fd), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PYTHONUNBUFFERED": "1"} | environment,
        cwd=WORKING_DIRECTORY,
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

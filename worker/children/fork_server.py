"""A fork server: the images of each instance, or each image, have a process of their own, made of one that is ready.

The decoder that the parent supervises reads no image. It forks the processes that do, which enter the sandbox each for
itself, gives them their jobs, and passes their answers on unread. What an image leaves behind in its process therefore
meets no image of another instance: it has neither the socket on which jobs arrive nor a right over the other processes,
and it is stopped (SIGSTOP) before another instance's image is begun, or soon after its own if none follows.

When an image kills its process, the server ends in the same way, so that the parent, which knows nothing of these
processes, blames the image for what has happened. The kernel kills them when the server dies.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import struct
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from worker.children import loop
from worker.errors import Misconfigured, exhausted
from worker.supervision import packets
from worker.supervision.packets import Packet

MAXIMUM_PROCESSES = 16
"""Most that wait for the next image of their instance. Each has five to nine megabytes of its own; a new one takes
eight milliseconds of processor time."""

_LONGEST_ANSWER_BYTES = 8 << 10
_FDS = 2
_LEEWAY_S = 1.0
_IDLE, _FOR_EVER, _LOOK = (struct.pack("ll", 0, 20_000), struct.pack("ll", 0, 0), struct.pack("ll", 1, 0))
"""How long is waited for something to read, as the kernel wants it: seconds, microseconds. For the next image, before
the process of the last is stopped: to stop it after each image would cost much. Then, for an image. For an answer,
before the processor time of its process is looked at."""

_EXIT_CODE_1 = 1 << 8

DoJob = Callable[[Packet, Sequence[int]], bytes]
"""Does a job, given its packet and its descriptors, which are closed when it returns; the packet that answers it."""

Begin = Callable[[int, Mapping[str, object]], tuple[DoJob, Mapping[str, object]]]
"""Makes a process ready for images that take so many bytes, given what the first process said of itself (the first:
nothing); what it says of itself. Raises `Misconfigured` when no other would be ready."""


class ForkServer:
    """Gives each job to the process of its instance, or, where its packet says `alone`, to one of its own.

    `begin` is what a new process does first. `memory_bytes`: what an image may take in a process that is not its own
    alone. `maximum_cpu_s`: the most processor time that any may take. `for_each_image`: no process sees a second image.
    """

    def __init__(self, begin: Begin, memory_bytes: int, maximum_cpu_s: int, *, for_each_image: bool) -> None:
        """Raises `Misconfigured` when this process has threads: their locks would never be released in a fork."""
        if (threads := len(os.listdir("/proc/self/task"))) > 1:
            raise Misconfigured(f"a library has started {threads - 1} threads", reason="threads_at_fork")
        self._begin = begin
        self._memory_bytes = memory_bytes
        self._maximum_cpu_s = maximum_cpu_s
        self._for_each_image = for_each_image
        self._hello: Packet = {}
        self._ready: _Process | None = None
        self._processes: OrderedDict[str, _Process] = OrderedDict()
        """By instance; that whose turn was last is the last."""
        self._running: _Process | None = None
        """The only one that is not stopped, or about to have its first image."""

    def start(self) -> Packet:
        """Start the first process, for whichever instance comes first; what it says of itself.

        Raises `Misconfigured`.
        """
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # ignored, as it may be by inheritance, nothing could be waited for
        gc.collect()
        gc.freeze()  # the collector's marks would have the kernel copy every page of every process
        self._ready, self._hello = self._fork(self._memory_bytes)
        return self._hello

    def serve(self, sock: socket.socket) -> None:
        """Have each job done by the process of its instance, and answer it. See `loop.Serve`."""
        while True:
            try:
                received = packets.receive_packed(sock, maximum_fds=_FDS)
            except BlockingIOError:  # there was nothing for `_IDLE_S`
                self._stop_running()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _FOR_EVER)
                continue
            if received is None:
                return
            data, fds = received
            packet = packets.unpack(data)
            if packet["kind"] == "stop":
                return
            if packet["kind"] == "ping":
                packets.send(sock, packets.pack("pong"))
                continue
            was_idle = self._running is None
            try:
                packets.send(sock, self._answer(packet, data, fds))
            finally:
                packets.close_all(fds)
            if self._for_each_image and self._ready is None:
                with suppress(OSError):  # the next image will try again
                    self._ready = self._fork(self._memory_bytes)[0]
            if was_idle and self._running is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _IDLE)

    def _answer(self, packet: Packet, data: bytes, fds: Sequence[int]) -> bytes:
        """The answer to a job, of its process or in the place of one that has ended."""
        instance = None if packet["alone"] or self._for_each_image else packet["instance"]
        try:
            process = self._process_for(instance, packet)
            resume = process is not self._running
            if resume:
                self._stop_running()
                self._running = process
            answer = process.ask(data, fds, packet["quick_s"] or self._maximum_cpu_s, resume=resume)
        except OSError as error:
            if exhausted(error, also=(errno.EAGAIN, errno.ETOOMANYREFS)) is None:
                raise
            traceback.print_exc()
            os.kill(os.getpid(), signal.SIGKILL)  # as if the kernel had, for want of memory: no image is to blame
        except _OutOfTimeError:
            self._end(process)
            answer, status = b"", int(signal.SIGXCPU)
        else:
            status = 0 if answer else process.wait()
        if not answer:
            self._processes.pop(instance or "", None)
            self._running = None
            return _answer_of_the_dead(status, quick=packet["quick_s"] is not None)
        if instance is None:
            self._end(process)
        return answer

    def _process_for(self, instance: str | None, packet: Packet) -> _Process:
        """The process of an instance; None: of an image alone."""
        if instance is None:
            return self._new(packet["memory_bytes"])
        process = self._processes.get(instance)
        if process is not None:
            self._processes.move_to_end(instance)
            if process is self._running or process.is_waiting():
                return process
            self._end(process)
        process = self._new(self._memory_bytes)
        self._processes[instance] = process
        self._processes.move_to_end(instance)
        if len(self._processes) > MAXIMUM_PROCESSES:
            self._end_oldest()
        return process

    def _new(self, memory_bytes: int) -> _Process:
        """Raises `OSError` when this machine has run out of processes, and none that waits is left to be ended."""
        if memory_bytes == self._memory_bytes and self._ready is not None:
            process, self._ready = self._ready, None
            return process
        while True:
            try:
                return self._fork(memory_bytes)[0]
            except OSError:
                if not self._processes:
                    raise
                self._end_oldest()

    def _end_oldest(self) -> None:
        self._end(self._processes.popitem(last=False)[1])

    def _end(self, process: _Process) -> None:
        if process is self._running:
            self._running = None
        process.end()

    def _stop_running(self) -> None:
        if self._running is not None:
            os.kill(self._running.pid, signal.SIGSTOP)
            self._running = None

    def _fork(self, memory_bytes: int) -> tuple[_Process, Packet]:
        """A process that is ready for images; what it says of itself. Raises `Misconfigured` and `OSError`."""
        ours, theirs = packets.socket_pair()
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            raise
        finally:
            if os.getpid() == server:
                theirs.close()
        if pid == 0:
            _run(theirs, server, partial(self._begin, memory_bytes, self._hello))
        ours.setblocking(True)
        received = packets.receive(ours, maximum_fds=0)  # it has seen no image yet
        if received is None:
            _end_like(os.waitpid(pid, 0)[1])
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LOOK)
        process, hello = _Process(pid, ours), received[0]
        if hello["kind"] == "hopeless":
            process.end()
            raise Misconfigured(hello["message"], reason=hello["reason"])
        return process, hello


class _OutOfTimeError(Exception):
    """A process has used more processor time than it may, and has not ended by that."""


@dataclass(frozen=True, slots=True)
class _Process:
    """The server's end of one process. Nothing that it sends is looked at here."""

    pid: int
    socket: socket.socket

    def ask(self, data: bytes, fds: Sequence[int], cpu_s: float, *, resume: bool) -> bytes:
        """Its answer to a job; nothing if it has ended. `resume`: it may be stopped.

        Raises `OSError`, and `_OutOfTimeError` when it has used much more than `cpu_s`: it limits its own processor
        time, but it may have been taken over.
        """
        began_s = None
        try:
            packets.send(self.socket, data, fds)
            if resume:
                os.kill(self.pid, signal.SIGCONT)
            while True:
                try:
                    return self.socket.recv(_LONGEST_ANSWER_BYTES)
                except BlockingIOError:
                    now_s = self._cpu_s()
                    began_s = began_s or now_s  # not read for every image: it is right but for the first second
                    if now_s - began_s > cpu_s:
                        raise _OutOfTimeError from None
        except ConnectionError:  # it has ended with the job unread
            return b""

    def wait(self) -> int:
        """How it has ended, as a status of `waitpid`, once it has closed its socket. One that lives on is killed."""
        self.socket.close()
        ends_at_s = time.monotonic() + _LEEWAY_S
        while time.monotonic() < ends_at_s:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return _EXIT_CODE_1

    def _cpu_s(self) -> float:
        """Processor time that it has used; 0 if it has ended. The number of a process's clock is in clock_getres(2)."""
        with suppress(OSError):
            return time.clock_gettime((~self.pid << 3) | 2)
        return 0.0

    def is_waiting(self) -> bool:
        """Whether it lives and has sent nothing but its answers."""
        try:
            self.socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def end(self) -> None:
        """Kill and reap it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.socket.close()


def _run(sock: socket.socket, server: int, begin: Callable[[], tuple[DoJob, Mapping[str, object]]]) -> NoReturn:
    """What a new process does to its end."""
    status = 0
    try:
        loop.end_with(server)
        os.closerange(3, sock.fileno())
        os.closerange(sock.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        try:
            answer, hello = begin()
        except Misconfigured as error:
            packets.send(sock, packets.pack("hopeless", {"reason": error.reason, "message": str(error)}))
            os._exit(1)
        packets.send(sock, packets.pack("hello", hello))
        while (received := packets.receive(sock, maximum_fds=_FDS)) is not None:
            packet, fds = received
            try:
                data = answer(packet, fds)
            finally:
                packets.close_all(fds)
            packets.send(sock, data)
    except BaseException:  # noqa: BLE001 - nothing of this process may run on as the server
        status = 1
        traceback.print_exc()
    finally:
        os._exit(status)


def _answer_of_the_dead(status: int, *, quick: bool) -> bytes:
    """What has ended with the first of its processor time goes on elsewhere; with any other end, this process ends."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if not quick or number not in (signal.SIGPROF, signal.SIGXCPU):
        _end_like(status)
    return packets.pack("more", {"memory_bytes": 0, "slow": True})


def _end_like(status: int) -> NoReturn:
    """End as a process of ours has ended: by the same signal, or with the same exit code."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with suppress(OSError):  # of SIGKILL nothing else is possible
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))

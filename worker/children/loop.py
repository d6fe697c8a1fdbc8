"""What every child does: begin, say hello, answer jobs in their order, and end with its parent.

A child is `python -m worker.children.NAME SOCKET_FD PARENT_PID`. It ignores the signals that a service manager or a
terminal sends to everybody: it ends when its parent asks it to, and the kernel ends it when the parent dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from worker.errors import Misconfigured
from worker.supervision import packets
from worker.supervision.packets import Packet

_PR_SET_PDEATHSIG = 1

Reply = Callable[[str, Mapping[str, object]], None]
"""Takes the answer to one job: its kind and fields. From any thread; answers are sent in the order of the jobs."""

Handler = Callable[[Packet, Sequence[int], Reply], None]
"""Takes a job: its packet, its descriptors, which are read when it returns, and where its answer goes, now or later."""

Prepare = Callable[[Mapping[str, Any]], tuple[Handler, Mapping[str, object]]]
"""Gets ready: from the parent's settings to the handler and what to say at hello. `Misconfigured`: there is no hope."""


def serve(prepare: Prepare) -> NoReturn:
    """Run a child to its end; called with nothing but the command line."""
    socket_fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    _end_with(parent_pid)
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    with socket.socket(fileno=socket_fd) as sock:
        begin = packets.receive(sock, maximum_fds=0)
        if begin is not None:
            _live(sock, prepare, begin[0])
    _leave(0)


def _live(sock: socket.socket, prepare: Prepare, settings: Packet) -> None:
    try:
        handle, hello = prepare(settings)
    except Misconfigured as error:
        packets.send(sock, packets.pack("hopeless", {"reason": error.reason, "message": str(error)}))
        _leave(1)
    packets.send(sock, packets.pack("hello", hello))
    answers = _Answers(sock)
    while (received := packets.receive(sock, maximum_fds=packets.MAXIMUM_FDS)) is not None:
        packet, fds = received
        if packet["kind"] == "stop":
            answers.wait_for_all()
            return
        if packet["kind"] == "ping":
            packets.send(sock, packets.pack("pong"))
            continue
        try:
            handle(packet, fds, answers.next())
        finally:
            packets.close_all(fds)


class _Answers:
    """The answers that are due, in the order in which they must go out."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._due: deque[list[bytes]] = deque()
        self._changed = threading.Condition()

    def next(self) -> Reply:
        """Where the answer to one more job goes."""
        answer: list[bytes] = []  # empty until it is there

        def reply(kind: str, fields: Mapping[str, object]) -> None:
            data = packets.pack(kind, fields)
            with self._changed:
                answer.append(data)
                while self._due and self._due[0]:
                    packets.send(self._sock, self._due.popleft()[0])
                self._changed.notify_all()

        with self._changed:
            self._due.append(answer)
        return reply

    def wait_for_all(self) -> None:
        """Return when every answer has been sent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._due)


def _end_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the parent dies, and end now if that has happened already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        _leave(1)


def _leave(status: int) -> NoReturn:
    """End without the interpreter's tidying up: native libraries have been seen to hang or crash in it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

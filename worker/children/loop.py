"""The main loop of every child: receive the settings, send `hello`, answer jobs in order, and end with the parent.

A child is `python -m worker.children.NAME SOCKET_FD PARENT_PID`. It ignores the signals that a service manager or a
terminal sends to the whole process group: it ends when its parent asks it to, and the kernel kills it when the parent
dies.
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

SendReply = Callable[[bytes], None]
"""Sends the packet that answers one job. May be called from any thread; answers go out in job order."""

Handler = Callable[[Packet, Sequence[int], SendReply], None]
"""Handles a job: its packet, its descriptors, which are closed when it returns, and the function that answers it, now
or later."""

Serve = Callable[[socket.socket], None]
"""Answers what the parent sends, each packet once and in its order, until it says `stop` or closes its end."""

Prepare = Callable[[Mapping[str, Any]], tuple[Serve, Mapping[str, object]]]
"""Sets the child up: from the parent's settings to what serves it and the fields of `hello`. Raises `Misconfigured`
when another start would fail in the same way."""


def serve(prepare: Prepare) -> NoReturn:
    """Run a child to its end. The arguments are those of the command line."""
    socket_fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    end_with(parent_pid)
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    with socket.socket(fileno=socket_fd) as sock:
        begin = packets.receive(sock, maximum_fds=0)
        if begin is not None:
            _run(sock, prepare, begin[0])
    _exit(0)


def _run(sock: socket.socket, prepare: Prepare, settings: Packet) -> None:
    try:
        serve_parent, hello = prepare(settings)
    except Misconfigured as error:
        packets.send(sock, packets.pack("hopeless", {"reason": error.reason, "message": str(error)}))
        _exit(1)
    packets.send(sock, packets.pack("hello", hello))
    serve_parent(sock)


def serve_jobs(handle: Handler) -> Serve:
    """Serves a parent whose jobs may be answered later, by other threads."""

    def serve_parent(sock: socket.socket) -> None:
        answers = _AnswerQueue(sock)
        while (received := packets.receive(sock, maximum_fds=packets.MAXIMUM_FDS)) is not None:
            packet, fds = received
            if packet["kind"] == "stop":
                answers.wait_for_all()
                return
            if packet["kind"] == "ping":
                packets.send(sock, packets.pack("pong"))
                continue
            try:
                handle(packet, fds, answers.reserve())
            finally:
                packets.close_all(fds)

    return serve_parent


class _AnswerQueue:
    """The answers that are due, in the order in which they must be sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._due: deque[list[bytes]] = deque()
        self._changed = threading.Condition()

    def reserve(self) -> SendReply:
        """The next place in the queue: the function that answers one more job."""
        answer: list[bytes] = []  # empty until there is one

        def reply(data: bytes) -> None:
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


def end_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the parent dies, and end now if that has happened already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        _exit(1)


def _exit(status: int) -> NoReturn:
    """Exit without the interpreter's shutdown, in which native libraries have been seen to hang or crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

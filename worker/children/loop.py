"""What every child does: begin, say hello, answer one job after another, and end with its parent.

A child is `python -m worker.children.NAME SOCKET_FD PARENT_PID`. It ignores the signals that a service manager or a
terminal sends to everybody: it ends when its parent asks it to, and the kernel ends it when the parent dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from worker import frames
from worker.errors import Misconfigured
from worker.frames import Packet

_PR_SET_PDEATHSIG = 1

Handler = Callable[[Packet, Sequence[int]], tuple[str, Mapping[str, object]]]
"""Answers a job: from its packet and descriptors to the kind and the fields of the answer."""

Prepare = Callable[[Mapping[str, Any]], tuple[Handler, Mapping[str, object]]]
"""Gets ready: from the parent's settings to the handler and what to say at hello. `Misconfigured`: there is no hope."""


def serve(prepare: Prepare) -> NoReturn:
    """Run a child to its end; called with nothing but the command line."""
    socket_fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    _end_with(parent_pid)
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    with socket.socket(fileno=socket_fd) as sock:
        begin = frames.receive(sock, maximum_fds=0)
        if begin is not None:
            _live(sock, prepare, begin[0])
    _leave(0)


def _live(sock: socket.socket, prepare: Prepare, settings: Packet) -> None:
    try:
        handle, hello = prepare(settings)
    except Misconfigured as error:
        frames.send(sock, frames.pack("hopeless", {"reason": error.reason, "message": str(error)}))
        _leave(1)
    frames.send(sock, frames.pack("hello", hello))
    while (received := frames.receive(sock, maximum_fds=frames.MAXIMUM_FDS)) is not None:
        packet, fds = received
        if packet["kind"] == "stop":
            return
        if packet["kind"] == "ping":
            frames.send(sock, frames.pack("pong"))
            continue
        try:
            kind, fields = handle(packet, fds)
        finally:
            frames.close_all(fds)
        frames.send(sock, frames.pack(kind, fields))


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

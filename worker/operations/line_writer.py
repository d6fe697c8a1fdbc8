"""Lines to a descriptor that nobody may be reading: writing never waits.

A full pipe, a stopped terminal or a journal that hangs would otherwise hold up the event loop, and with it every event
and health check. What cannot be written is kept, up to a limit, and written when there is room; what is beyond the
limit is lost, and counted.

O_NONBLOCK is a flag of the open file description, which others have too: a shell, the other end of
a pipeline, the processes of a container. So it is never set on the descriptor that we were given. A pipe or a terminal
is opened once more through /proc, which gives a description of our own; a socket takes MSG_DONTWAIT for each write.
Where a pipe may not be opened again (it belongs to another user), it is asked first whether it has room, and gets at
most PIPE_BUF bytes, which fit if it has (pipe(7)); only another writer in between could then make us wait. Files and
other devices are written to as they are: they do not fill up while they wait for a reader.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

MAXIMUM_KEPT_BYTES = 1 << 20
"""Of lines that wait for room."""

_PIPE_BUF = select.PIPE_BUF


class LineWriter:
    """Writes lines to a descriptor, from any thread.

    `on_lost` is called with the number of lines that were lost, as soon as one can be written again.
    """

    def __init__(self, fd: int, on_lost: Callable[[int], None]) -> None:
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._lost = 0
        self._failing = False
        self._watched: asyncio.AbstractEventLoop | None = None
        self._fd, self._write = _unblocked(fd)
        atexit.register(self.flush)

    def write_line(self, line: bytes) -> None:
        """Write one line, with its line break. Raises nothing: a line that cannot be written is counted as lost."""
        with self._lock:
            if self._kept:
                self._write_kept()
            if self._kept:
                self._keep(line)
            elif rest := self._write_now(line):
                self._keep(rest)
            lost = self._take_lost()
        if lost:
            self._on_lost(lost)

    def flush(self) -> None:
        """Write what is kept, as far as there is room."""
        with self._lock:
            self._write_kept()
            lost = self._take_lost()
        if lost:
            self._on_lost(lost)

    def _write_now(self, data: bytes) -> bytes:
        """What there was no room for."""
        try:
            while data:
                data = data[self._write(data) :]
        except BlockingIOError:
            return data
        except OSError:  # the reader has gone, or a disk is full
            self._lost += 1
            self._failing = True
            return b""
        self._failing = False
        return b""

    def _write_kept(self) -> None:
        while self._kept:
            first = self._kept[0]
            rest = self._write_now(first)
            self._kept_bytes += len(rest) - len(first)
            if rest:
                self._kept[0] = rest
                return
            self._kept.popleft()

    def _keep(self, line: bytes) -> None:
        if self._kept_bytes + len(line) > MAXIMUM_KEPT_BYTES:
            self._lost += 1
            return
        self._kept.append(line)
        self._kept_bytes += len(line)
        self._watch()

    def _take_lost(self) -> int:
        """How many lines to report as lost: none while the report could not be written."""
        if self._kept or self._failing:
            return 0
        lost, self._lost = self._lost, 0
        return lost

    def _watch(self) -> None:
        """Have the event loop write the rest when there is room. Without a loop in this thread, the next line does."""
        if self._watched is None or self._watched.is_closed():
            with suppress(RuntimeError, OSError):
                loop = asyncio.get_running_loop()
                loop.add_writer(self._fd, self._on_room)
                self._watched = loop

    def _on_room(self) -> None:
        self.flush()
        with self._lock:
            if not self._kept and self._watched is not None:
                self._watched.remove_writer(self._fd)
                self._watched = None


def _unblocked(fd: int) -> tuple[int, Callable[[bytes], int]]:
    """A descriptor to watch, and how to write to it: bytes written, or BlockingIOError instead of waiting."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=os.dup(fd))
        return sock.fileno(), lambda data: sock.send(data, socket.MSG_DONTWAIT)
    if not (stat.S_ISFIFO(mode) or os.isatty(fd)):
        return fd, lambda data: os.write(fd, data)
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return fd, lambda data: _write_if_there_is_room(fd, data)
    return own, lambda data: os.write(own, data)


def _write_if_there_is_room(fd: int, data: bytes) -> int:
    room = select.poll()
    room.register(fd, select.POLLOUT)
    if not room.poll(0):
        raise BlockingIOError
    return os.write(fd, data[:_PIPE_BUF])

"""Listening sockets with a limit: how many connections there may be, and how long each may keep the service waiting.

The HTTP server and the control socket share this process, and so its descriptors, with the work. Connections are
therefore counted where they are accepted, before asyncio or TLS has anything to do with them. When the limit is
reached, the connection that has waited longest without a complete request is closed to make room, so that connections
on which nothing happens can lock out neither probes nor operators. One whose request is being answered is never closed
for another.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum, StrEnum
from typing import Any

import structlog

from worker.errors import exhausted

_log = structlog.get_logger(__name__)

_SHARE_OF_DESCRIPTORS = 4
"""All connections of a listening socket together get at most this fraction, a quarter, of the descriptors."""

_ACCEPTED_AT_ONCE = 8
"""How many connections asyncio accepts in one turn of the event loop.

Small, because a connection that is closed to make room gives its descriptor back a turn or two later.
"""

_BACKLOG = 128
"""How many the kernel keeps until they are accepted."""

_REFUSED_AT_ONCE = 16
_CHECK_INTERVAL_S = 0.25
_LOG_INTERVAL_S = 10.0


class Refusal(StrEnum):
    """Why a connection was closed that its peer would have kept."""

    LIMIT = "limit"
    """The limit is reached, and every other connection is being answered."""
    MAKE_ROOM = "make_room"
    """It had waited longest without a complete request when the limit was reached."""
    DESCRIPTORS = "descriptors"
    """The process has no descriptor left."""
    TIMEOUT = "timeout"
    """No complete request came, or its response was not read, within the time that there is for it."""


class Stage(IntEnum):
    """How far a connection is; the lower, the sooner it is closed to make room."""

    WAITING = 0
    """For a handshake, a complete request head, or a line."""
    READING = 1
    """The request's body."""
    ANSWERING = 2
    """The request is complete and being answered."""


class AcceptedSocket(socket.socket):
    """A connection's socket, which reports when it is closed by asyncio, TLS or the protocol."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close the socket."""
        super().close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()


class AcceptedConnection:
    """One connection, as far as the limit is concerned. `deadline_s` is monotonic, infinite without a deadline."""

    def __init__(self, close: Callable[[], None], since_s: float, deadline_s: float) -> None:
        self.stage = Stage.WAITING
        self.since_s = since_s
        self.deadline_s = deadline_s
        self.closing = False
        self.close = close
        """Ends the connection, now or within a few turns of the event loop. Its protocol may replace it."""

    def enter(self, stage: Stage, now_s: float, within_s: float = math.inf) -> None:
        """Begin a stage, which may last `within_s`."""
        self.stage, self.since_s, self.deadline_s = stage, now_s, now_s + within_s


class ConnectionLimit:
    """The connections of one listening socket, and which of them is closed when. Time is an argument.

    `on_refused` is called for each connection that is closed. There are at most `maximum` connections besides those
    that have been closed and have not given their descriptors back yet, and never more than a quarter above it.
    """

    def __init__(
        self, maximum: int, *, request_within_s: float, on_refused: Callable[[Refusal], None] = lambda _why: None
    ) -> None:
        self.maximum = maximum
        self._request_within_s = request_within_s
        self._on_refused = on_refused
        self._connections: set[AcceptedConnection] = set()
        self._closing = 0

    def __len__(self) -> int:
        return len(self._connections)

    def admit(self, close: Callable[[], None], now_s: float) -> AcceptedConnection | None:
        """Count one more connection, after closing another where there must be room; None where it is refused."""
        if len(self) - self._closing >= self.maximum and not self.make_room():
            self.refuse(Refusal.LIMIT)
            return None
        if len(self) >= self.maximum + max(1, self.maximum // 4):
            self.refuse(Refusal.LIMIT)
            return None
        connection = AcceptedConnection(close, now_s, now_s + self._request_within_s)
        self._connections.add(connection)
        return connection

    def make_room(self) -> bool:
        """Close the connection that can best be spared; False where all are being answered, or closed already."""
        spare = [each for each in self._connections if not each.closing and each.stage < Stage.ANSWERING]
        if not spare:
            return False
        self._close(min(spare, key=lambda each: (each.stage, each.since_s)), Refusal.MAKE_ROOM)
        return True

    def close_overdue(self, now_s: float) -> None:
        """Close the connections whose deadline has passed."""
        for each in [each for each in self._connections if each.deadline_s <= now_s and not each.closing]:
            self._close(each, Refusal.TIMEOUT)

    def refuse(self, why: Refusal) -> None:
        """A connection is closed, or has been closed right after it was accepted."""
        self._on_refused(why)

    def closed(self, connection: AcceptedConnection) -> None:
        """A connection has given its descriptor back."""
        self._connections.discard(connection)
        self._closing -= connection.closing

    def _close(self, connection: AcceptedConnection, why: Refusal) -> None:
        connection.closing = True
        self._closing += 1
        self.refuse(why)
        connection.close()


class ListeningSocket(socket.socket):
    """A listening socket for asyncio, whose connections are limited and have a deadline for each request.

    `what` is the name of what listens, for the log. `bind` it, then hand it to a server of asyncio's own event loop:
    other loops accept by the descriptor, past this class.
    """

    ACCEPTED_AT_ONCE = _ACCEPTED_AT_ONCE
    """The `backlog` to give to asyncio, which accepts that many in one turn of its loop; `listen` has its own."""

    def __init__(
        self,
        family: int,
        what: str,
        maximum: int,
        *,
        request_within_s: float,
        on_refused: Callable[[Refusal], None] = lambda _why: None,
    ) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._what = what
        self._count = on_refused
        self._limit = ConnectionLimit(
            affordable(maximum), request_within_s=request_within_s, on_refused=self._note_refusal
        )
        self._by_descriptor: dict[int, AcceptedConnection] = {}
        self._refusals: Counter[Refusal] = Counter()
        self._logged_at_s = -math.inf
        self._failed_at_s = -math.inf
        self._checking: asyncio.TimerHandle | None = None
        # Given up for a moment when there is no other, to accept a connection and close it: one that is left in the
        # kernel's queue would wake the event loop again and again.
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def beside(self, family: int) -> ListeningSocket:
        """Another listening socket of the same server, whose connections count together with those of this one."""
        other = ListeningSocket(family, self._what, self.maximum, request_within_s=math.inf)
        other._limit, other._by_descriptor = self._limit, self._by_descriptor
        return other

    @property
    def maximum(self) -> int:
        """The most connections at a time."""
        return self._limit.maximum

    def connection(self, transport: asyncio.WriteTransport) -> AcceptedConnection:
        """The connection of a transport, which is from now on closed by aborting the transport."""
        connection = self._by_descriptor.get(transport.get_extra_info("socket").fileno())
        if connection is None:  # it has just been closed
            return AcceptedConnection(transport.abort, time.monotonic(), math.inf)
        connection.close = transport.abort
        return connection

    def listen(self, backlog: int = _BACKLOG, /) -> None:
        """Listen. What asyncio passes as `backlog` is how many it accepts in one turn; the kernel keeps more."""
        super().listen(max(backlog, _BACKLOG))

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection within the limit; others are closed at once. Raises BlockingIOError if there is none."""
        for _ in range(_REFUSED_AT_ONCE):
            accepted, address = self._accept_next()
            now_s = time.monotonic()
            if accepted is not None and self._admit(accepted, now_s):
                return accepted, address
        raise BlockingIOError  # the rest of them in the next turn of the event loop

    def close(self) -> None:
        """Stop listening. Connections are left alone."""
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
        super().close()

    def _accept_next(self) -> tuple[AcceptedSocket | None, Any]:
        """The next connection; None for one that had to be closed because there is no descriptor for it."""
        try:
            plain, address = super().accept()
        except OSError as error:
            if exhausted(error) is None:
                raise
            self._limit.make_room()
            self._close_next(error)
            return None, None
        return AcceptedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach()), address

    def _admit(self, accepted: AcceptedSocket, now_s: float) -> bool:
        connection = self._limit.admit(lambda: _shut_down(accepted), now_s)
        if connection is None:
            accepted.close()
            return False
        descriptor = accepted.fileno()
        self._by_descriptor[descriptor] = connection

        def on_close() -> None:
            del self._by_descriptor[descriptor]
            self._limit.closed(connection)

        accepted.on_close = on_close
        self._check_deadlines_later()
        return True

    def _close_next(self, error: OSError) -> None:
        """Accept a connection with the descriptor in reserve, and close it. Raises `error` if even that fails."""
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
        try:
            super().accept()[0].close()
            self._limit.refuse(Refusal.DESCRIPTORS)
        except BlockingIOError:
            raise
        except OSError:
            now_s, before_s = time.monotonic(), self._failed_at_s
            self._failed_at_s = now_s
            if now_s - before_s < 1.0:
                raise BlockingIOError from error
            raise error from None  # asyncio logs it, and accepts nothing for a second
        finally:
            with suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _check_deadlines_later(self) -> None:
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(_CHECK_INTERVAL_S, self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._checking = None
        now_s = time.monotonic()
        self._limit.close_overdue(now_s)
        self._log_refusals(now_s)
        if len(self._limit) or self._refusals:
            self._check_deadlines_later()

    def _note_refusal(self, why: Refusal) -> None:
        self._count(why)
        if why is not Refusal.TIMEOUT:  # a browser opens connections in reserve, and never uses some of them
            self._refusals[why] += 1
            self._log_refusals(time.monotonic())

    def _log_refusals(self, now_s: float) -> None:
        """One line in ten seconds, however many there are."""
        if self._refusals and now_s - self._logged_at_s >= _LOG_INTERVAL_S:
            self._logged_at_s = now_s
            counts = {why.value: number for why, number in self._refusals.items()}
            self._refusals.clear()
            _log.warning("connections closed", to=self._what, **counts, open=len(self._limit), maximum=self.maximum)


def affordable(maximum: int) -> int:
    """`maximum`, or a quarter of the descriptors that this process may have, if that is less."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return maximum if soft == resource.RLIM_INFINITY else max(1, min(maximum, soft // _SHARE_OF_DESCRIPTORS))


def _shut_down(accepted: socket.socket) -> None:
    """End a connection that has no protocol yet, for example in a TLS handshake: asyncio reads the end, and closes."""
    with suppress(OSError):
        accepted.shutdown(socket.SHUT_RDWR)

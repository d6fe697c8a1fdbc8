"""One HTTP connection: uvicorn's protocol, with a deadline for each thing that a client could keep us waiting for.

Heads, bodies and the reading of responses each have their time, counted from their beginning: single bytes extend
none of them. The connection is closed at the deadline by the socket that accepted it, which also closes connections to
make room for others; see `worker.operations.connections`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.operations.connections import AcceptedConnection, ListeningSocket, Stage

MAXIMUM_CONNECTIONS = 200
"""At a time; fewer where the process may have fewer than 800 descriptors."""

MAXIMUM_HEAD_BYTES = 16 << 10
"""Of a request's head; a longer one is answered with 400."""

IDLE_S = 5
"""How long a connection stays open after a response when nothing comes."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """In seconds: a complete head, from accept or the end of the response before; a complete body, from the end of its
    head; the time in which a client reads what is ready for it. `body_by_path_s` are exceptions for single paths.
    """

    head_s: float = 10.0
    body_s: float = 10.0
    reading_s: float = 10.0
    body_by_path_s: Mapping[str, float] = field(default_factory=dict)

    def below(self, root_path: str) -> Deadlines:
        """The same, also for requests whose path begins with `root_path`."""
        return replace(
            self,
            body_by_path_s={**self.body_by_path_s, **{root_path + path: s for path, s in self.body_by_path_s.items()}},
        )


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol, which keeps `AcceptedConnection` informed of the connection's stage."""

    def __init__(self, listening: ListeningSocket, deadlines: Deadlines, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._listening = listening
        self._deadlines = deadlines
        self._connection: AcceptedConnection | None = None
        self._writing_paused = False

    @classmethod
    def on(cls, listening: ListeningSocket, deadlines: Deadlines) -> type[asyncio.Protocol]:
        """What uvicorn's `http` setting wants: called with uvicorn's own arguments, it makes a protocol."""
        make: Callable[..., LimitedProtocol] = partial(cls, listening, deadlines)
        return cast("type[asyncio.Protocol]", make)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """A connection has been accepted, and with TLS its handshake is complete."""
        super().connection_made(transport)
        self._connection = self._listening.connection(transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """The response is written, though perhaps not read; the next request may be here already."""
        if self._connection is not None:
            self._connection.enter(Stage.WAITING, time.monotonic(), self._deadlines.head_s)
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """The client does not read what is ready for it."""
        super().pause_writing()
        self._writing_paused = True
        if self._connection is not None:
            self._connection.enter(self._stage, time.monotonic(), self._deadlines.reading_s)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._writing_paused = False
        if self._connection is not None and self._connection.stage is Stage.ANSWERING:
            self._connection.enter(Stage.ANSWERING, time.monotonic())

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; after a response has begun, only by closing."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    @property
    def _stage(self) -> Stage:
        if self.cycle is None or self.cycle.response_complete:
            return Stage.WAITING
        return Stage.READING if self.cycle.more_body else Stage.ANSWERING

    def _update(self) -> None:
        """Note a new stage. In the same stage its deadline stays, however much comes."""
        connection, stage = self._connection, self._stage
        if connection is None or connection.stage is stage:
            return
        now_s = time.monotonic()
        if stage is Stage.READING:
            path = self.scope["path"]
            connection.enter(stage, now_s, self._deadlines.body_by_path_s.get(path, self._deadlines.body_s))
        elif stage is Stage.ANSWERING and not self._writing_paused:
            connection.enter(stage, now_s)

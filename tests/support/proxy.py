"""A TCP proxy that injects network faults: dropped, silent, half-open, slow connections, and frames cut in two.

It relays in a thread of its own, which goes on while the test polls. It counts what it does to the bytes, and a test
proves by these counts that its fault happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Self, TypeVar

SLOW_BYTES_PER_S = 1024
_CHUNK_BYTES = 128
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_T = TypeVar("_T")


class Mode(Enum):
    """What the proxy does with the bytes it reads."""

    PASS = auto()
    SWALLOW = auto()
    """Discard them. Both ends stay connected and receive nothing, as with a firewall that dropped its state."""
    SLOW = auto()
    CUT_A_FRAME = auto()
    """Pass the next bytes from the broker without the last one, and reset both ends."""


class Relay:
    """One client's connection and the proxy's own to the broker."""

    def __init__(self, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self.client = client
        self.broker = broker
        self.tasks: list[asyncio.Task[None]] = []

    def reset(self) -> None:
        """End both connections with a TCP reset."""
        for writer in (self.client, self.broker):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class Proxy:
    """Listens on `port` and relays to `upstream_port`. A context manager, which starts and stops the thread."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._mode = Mode.PASS
        self._refusing = False
        self._half_open_relays: set[Relay] = set()
        self._relays: set[Relay] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0
        self.connections = 0
        self.passed_bytes = 0
        self.swallowed_bytes = 0
        self.slow_bytes = 0
        self.resets = 0
        self.refused = 0

    # ── faults, for the test's thread ────────────────────────────────────────────────────────────────────────────────

    def drop(self) -> int:
        """Reset every connection, and refuse new ones until `heal`; returns how many there were."""
        return self._call(self._drop)

    def black_hole(self) -> None:
        """Discard all bytes of all connections, in both directions, until `heal`."""
        self._call(lambda: self._set(Mode.SWALLOW))

    def half_open(self) -> int:
        """Close every connection on the broker's side only; returns how many there were."""
        return self._call(self._half_open)

    def slow(self) -> None:
        """Pass 1 KiB a second in each direction, until `heal`."""
        self._call(lambda: self._set(Mode.SLOW))

    def cut_a_frame(self) -> None:
        """Reset the connection in the middle of the next frame that the broker sends."""
        self._call(lambda: self._set(Mode.CUT_A_FRAME))

    def heal(self) -> None:
        """Relay again. Connections that have lost bytes are reset, since their streams are broken."""
        self._call(self._heal)

    # ── start ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        self._server.close()
        tasks = [task for relay in self._relays for task in relay.tasks]
        for relay in list(self._relays):
            relay.reset()
        if tasks:
            await asyncio.wait(tasks, timeout=2)

    def _call(self, function: Callable[[], _T]) -> _T:
        async def run() -> _T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    # ── proxy thread ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _set(self, mode: Mode) -> None:
        self._mode = mode

    def _drop(self) -> int:
        self._refusing = True
        return self._reset_all()

    def _reset_all(self) -> int:
        relays = list(self._relays)
        for relay in relays:
            relay.reset()
        self.resets += len(relays)
        return len(relays)

    def _half_open(self) -> int:
        relays = self._relays - self._half_open_relays
        self._half_open_relays |= relays
        for relay in relays:
            relay.broker.transport.abort()
        return len(relays)

    def _heal(self) -> None:
        damaged = self._mode is Mode.SWALLOW
        self._mode, self._refusing = Mode.PASS, False
        for relay in list(self._relays if damaged else self._half_open_relays):
            relay.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.refused += 1
            writer.transport.abort()
            return
        try:
            upstream, to_broker = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        relay = Relay(writer, to_broker)
        self._relays.add(relay)
        relay.tasks = [
            asyncio.create_task(self._pump(relay, reader, to_broker, from_broker=False)),
            asyncio.create_task(self._pump(relay, upstream, writer, from_broker=True)),
        ]
        await asyncio.wait(relay.tasks)
        relay.reset()
        self._relays.discard(relay)
        self._half_open_relays.discard(relay)

    async def _pump(
        self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_broker: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._forward(relay, data, writer, from_broker=from_broker)
        if relay not in self._half_open_relays:  # one end has closed: close the other, unless half open
            relay.client.close()
            relay.broker.close()

    async def _forward(self, relay: Relay, data: bytes, writer: asyncio.StreamWriter, *, from_broker: bool) -> None:
        if relay in self._half_open_relays or self._mode is Mode.SWALLOW:
            self.swallowed_bytes += len(data)
        elif self._mode is Mode.CUT_A_FRAME and from_broker:
            self._mode = Mode.PASS
            writer.write(data[:-1])
            await writer.drain()
            self.resets += 1
            relay.reset()
        elif self._mode is Mode.SLOW:
            await self._forward_slowly(data, writer)
        else:
            self.passed_bytes += len(data)
            writer.write(self._passed(relay, data, from_broker=from_broker))
            await writer.drain()

    def _passed(self, relay: Relay, data: bytes, *, from_broker: bool) -> bytes:
        """What is passed on for these bytes."""
        return data

    async def _forward_slowly(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            if self._mode is Mode.SLOW:
                await asyncio.sleep(len(chunk) / SLOW_BYTES_PER_S)
                self.slow_bytes += len(chunk)
            writer.write(chunk)
            await writer.drain()

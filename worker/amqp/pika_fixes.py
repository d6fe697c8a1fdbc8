"""pika's asyncio connection, mended in two places by overriding methods that pika does not promise to keep; tests hold
it to what we expect.

Headers that pika cannot decode (a timestamp in milliseconds lies beyond Python's last year) raise inside its read loop,
which costs the connection. The broker then delivers the same message again, and everything else in hand with it, until
the delivery limit sets all of them aside. Here the message arrives without its properties and with a header that says
why.

Each frame is sent by itself in pika, a message in three, and each time RabbitMQ is woken. Here all that is written in
one turn of the event loop is sent together.
"""

from __future__ import annotations

import struct
from typing import Any

import structlog
from pika import frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import InvalidFrameError

_log = structlog.get_logger(__name__)

UNREADABLE_HEADER = "x-autotag-unreadable-properties"
"""On a delivery whose properties could not be decoded: why."""

_FRAME = struct.Struct(">BHL")
_CONTENT_HEADER = struct.Struct(">HHQ")


_ENOUGH_BYTES = 128 << 10


class PikaConnection(AsyncioConnection):  # type: ignore[misc]  # pika ships no type information
    """An AsyncioConnection that survives any message, and writes once a turn."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        super().__init__(*args, **options)

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._unsent:
            self.ioloop.call_soon(self._send_together)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes > _ENOUGH_BYTES:  # an image in a message: what is not taken at once would be copied again
            self._send_together()

    def _send_together(self) -> None:
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        if unsent and not self.is_closed:
            super()._adapter_emit_data(b"".join(unsent))

    def _read_frame(self) -> tuple[int, Any]:
        try:
            read: tuple[int, Any] = super()._read_frame()
        except Exception as error:
            # Whatever a publisher wrote into a header must not take the connection down, so the net is wide; anything
            # but a content header is a broken stream, and raised.
            kind, channel, size_bytes = _FRAME.unpack_from(self._frame_buffer)
            if kind != spec.FRAME_HEADER or isinstance(error, InvalidFrameError):
                raise
            _log.warning("properties of a message cannot be read and are left out", error=str(error))
            _, _, body_bytes = _CONTENT_HEADER.unpack_from(self._frame_buffer, _FRAME.size)
            properties = spec.BasicProperties(headers={UNREADABLE_HEADER: f"{type(error).__name__}: {error}"})
            return _FRAME.size + size_bytes + 1, frame.Header(channel, body_bytes, properties)
        return read

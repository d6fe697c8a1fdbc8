"""pika's asyncio connection, made to survive what a publisher may write into a header.

Headers that pika cannot decode (a timestamp in milliseconds lies beyond Python's last year) raise inside its read loop,
which costs the connection. The broker then delivers the same message again, and everything else in hand with it, until
the delivery limit sets all of them aside. Here the message arrives without its properties and with a header that says
why. This overrides a method that pika does not promise to keep; a test holds it to what we expect.
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


class TolerantConnection(AsyncioConnection):  # type: ignore[misc]  # pika ships no type information
    """An AsyncioConnection that survives any message."""

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

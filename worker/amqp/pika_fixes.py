"""pika's asyncio connection with five fixes, made by overriding private methods; tests check that they still apply.

Headers that pika cannot decode raise inside its read loop (a timestamp in milliseconds is beyond Python's last year),
which closes the connection. RabbitMQ then redelivers the message and everything else in hand, until the delivery limit
dead-letters all of them. Here the message arrives with those properties and headers that can be read (`salvage`), and
with a header that holds the reason.

pika reads further words of flags where the last bit of the first says that there are some; RabbitMQ does not. So a
publisher could have a `user_id` read here that is not the one RabbitMQ has compared. Such properties are salvaged too.

pika sends each frame by itself, and a message is three frames, each of which wakes RabbitMQ. Here everything written in
one iteration of the event loop is sent together.

pika reads whatever RabbitMQ sends, up to the prefetch, however large the messages are. Here reading can be paused, and
a message's size is known from its header on.

pika keeps the frames of a message until it joins them, so that a large one is there twice. Here it grows in one place.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import structlog
from pika import frame, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import ContentFrameAssembler
from pika.exceptions import InvalidFrameError

from worker.amqp.salvage import salvage

_log = structlog.get_logger(__name__)

UNREADABLE_HEADER = "x-autotag-unreadable-properties"
"""On a delivery whose properties could not be decoded: the decoder's error."""

_MAXIMUM_REASON_CHARACTERS = 300

_FRAME = struct.Struct(">BHL")
_CONTENT_HEADER = struct.Struct(">HHQ")

_FLAGS_AT = _FRAME.size + _CONTENT_HEADER.size
_MORE_FLAGS = 1

_FLUSH_BYTES = 128 << 10
"""More than this is sent at once: what the socket does not take immediately would be copied once more."""


def _read_nothing() -> None:
    """Takes the place of the transport's reading while that is paused."""


class UnreadableProperties(spec.BasicProperties):  # type: ignore[misc]  # pika ships no type information
    """The properties of a message of whose own, `encoded`, some could not be decoded.

    The header `UNREADABLE_HEADER` is made here. The type distinguishes it from a publisher's header of the same name.
    """

    def __init__(self, error: Exception, encoded: bytes = b"") -> None:
        found = salvage(encoded)
        self.note = {UNREADABLE_HEADER: f"{type(error).__name__}: {error}"[:_MAXIMUM_REASON_CHARACTERS]}
        super().__init__(**found | {"headers": found.get("headers", {}) | self.note})


class _Body(io.BytesIO):
    """The body of a message so far, in the place of pika's list of frames."""

    append = io.BytesIO.write


class _MessageAssembler(ContentFrameAssembler):  # type: ignore[misc]  # pika ships no type information
    """Assembles a message from its frames. `on_header` is called when one has begun."""

    def __init__(self, on_header: Callable[[], None]) -> None:
        super().__init__()
        self._on_header = on_header
        self._reset()

    @property
    def coming_bytes(self) -> int:
        """The size of the message that is arriving; 0 between two."""
        return self._header_frame.body_size if self._header_frame is not None else 0

    def process(self, frame_value: Any) -> Any:
        assembled = super().process(frame_value)
        if assembled is None and isinstance(frame_value, frame.Header):
            self._on_header()
        return assembled

    def _finish(self) -> tuple[Any, Any, bytes]:
        content = (self._method_frame, self._header_frame, self._body_fragments.getvalue())  # the bytes, not a copy
        self._reset()
        return content

    def _reset(self) -> None:
        super()._reset()
        self._body_fragments = _Body()


class PikaConnection(AsyncioConnection):  # type: ignore[misc]  # pika ships no type information
    """An AsyncioConnection that survives any message, and writes once an iteration of the event loop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._reading_paused = False
        self.on_coming: Callable[[], None] = lambda: None
        """Called when the header of a message has arrived: `coming_bytes` has become more."""
        super().__init__(*args, **options)

    @property
    def coming_bytes(self) -> int:
        """The sizes of the messages that have begun to arrive, and of which there is more to come; one a channel."""
        return sum(each._content_assembler.coming_bytes for each in self._channels.values())

    def _create_channel(self, *args: Any, **options: Any) -> Any:
        channel = super()._create_channel(*args, **options)
        channel._content_assembler = _MessageAssembler(self._on_header)
        return channel

    def _on_header(self) -> None:
        self.on_coming()

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._unsent:
            self.ioloop.call_soon(self._flush)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes > _FLUSH_BYTES:  # a message with an image in it
            self._flush()

    def _flush(self) -> None:
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        if unsent and not self.is_closed:
            super()._adapter_emit_data(b"".join(unsent))

    def pause_reading(self) -> None:
        """Read nothing more from the socket, so that RabbitMQ's messages wait on its side. pika has no such method."""
        transport = self._transport
        if self._reading_paused or transport is None or transport._sock is None:
            return
        self._reading_paused = True
        transport._MAX_CONSUME_BYTES = 0  # ends the loop that may be reading at this moment
        transport._on_socket_readable = _read_nothing
        transport._nbio.remove_reader(transport._sock.fileno())

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        transport = self._transport
        if not self._reading_paused:
            return
        self._reading_paused = False
        if transport is None or transport._sock is None or transport._state != transport._STATE_ACTIVE:
            return
        del transport._MAX_CONSUME_BYTES, transport._on_socket_readable
        transport._nbio.set_reader(transport._sock.fileno(), transport._on_socket_readable)
        # With TLS there may be bytes that are decrypted already.
        transport._nbio.add_callback_threadsafe(transport._on_socket_readable)

    def _read_frame(self) -> tuple[int, Any]:
        try:
            read: tuple[int, Any] = super()._read_frame()
            if isinstance(read[1], frame.Header) and self._frame_buffer[_FLAGS_AT + 1] & _MORE_FLAGS:
                raise ValueError("further words of flags")  # noqa: TRY301 - one way for all that is not as it should be
        except Exception as error:
            # No header of any publisher may close the connection, so every error is caught. A frame of any other kind
            # is a broken stream, and its error is raised.
            kind, channel, size_bytes = _FRAME.unpack_from(self._frame_buffer)
            if kind != spec.FRAME_HEADER or isinstance(error, InvalidFrameError):
                raise
            _log.warning("properties of a message cannot be read and are left out", error=str(error))
            _, _, body_bytes = _CONTENT_HEADER.unpack_from(self._frame_buffer, _FRAME.size)
            encoded = bytes(self._frame_buffer[_FLAGS_AT : _FRAME.size + size_bytes])
            return _FRAME.size + size_bytes + 1, frame.Header(channel, body_bytes, UnreadableProperties(error, encoded))
        return read

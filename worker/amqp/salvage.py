"""What can still be read of a message's properties when pika cannot decode all of them.

pika gives up at the first header that it cannot decode. The encoding (AMQP 0-9-1, section 4.2) gives the length of
nearly every value, so that one that cannot be decoded can be left out, and the others read: content type and message id
decide how an event is read, and whether it is read at all. Only a type of value that nobody knows has no known length;
what follows it in its table is lost, but not what follows the table.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from pika import data

_PROPERTIES: Final = (
    # name, kind; in the order of the flags, from bit 15 down
    ("content_type", "text"),
    ("content_encoding", "text"),
    ("headers", "table"),
    ("delivery_mode", ">B"),
    ("priority", ">B"),
    ("correlation_id", "text"),
    ("reply_to", "text"),
    ("expiration", "text"),
    ("message_id", "text"),
    ("timestamp", ">Q"),
    ("type", "text"),
    ("user_id", "text"),
    ("app_id", "text"),
    ("cluster_id", "text"),
)

_SIZES: Final = {
    **dict.fromkeys((b"t", b"b", b"B"), 1),
    **dict.fromkeys((b"U", b"u", b"s"), 2),
    **dict.fromkeys((b"I", b"i", b"f"), 4),
    **dict.fromkeys((b"L", b"l", b"d", b"T"), 8),
    b"D": 5,
    b"V": 0,
}
"""Bytes of a value by its type; of the types S, x, A and F, a length comes first."""
_WITH_LENGTH: Final = frozenset({b"S", b"x", b"A", b"F"})


def salvage(encoded: bytes) -> dict[str, Any]:
    """The properties in a content header that can be decoded, by name. Raises nothing."""
    found: dict[str, Any] = {}
    try:
        # RabbitMQ takes no further words of flags, whatever the last bit of the first one says: no property needs them.
        at, flags = 2, struct.unpack_from(">H", encoded)[0]
        for bit, (name, kind) in enumerate(_PROPERTIES):
            if not flags & (1 << (15 - bit)):
                continue
            if kind == "text":
                found[name], at = data.decode_short_string(encoded, at)
            elif kind == "table":
                (size,) = struct.unpack_from(">I", encoded, at)
                found[name] = _table(encoded[at + 4 : at + 4 + size])
                at += 4 + size
            else:
                (found[name],) = struct.unpack_from(kind, encoded, at)
                at += struct.calcsize(kind)
    except struct.error:
        pass  # it ends before its time
    return found


def _table(encoded: bytes) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    at = 0
    while at < len(encoded):
        name, at = data.decode_short_string(encoded, at)
        try:
            value, after = data.decode_value(encoded, at)
        except Exception:  # noqa: BLE001 - whatever a publisher wrote, the other headers are wanted
            size = _size(encoded, at)
            if size is None:
                break
            at += size
            continue
        at = after
        if isinstance(name, str):
            entries[name] = value
    return entries


def _size(encoded: bytes, at: int) -> int | None:
    """The bytes of the value at an offset, its type included; None if nobody knows."""
    kind = encoded[at : at + 1]
    if kind in _WITH_LENGTH and len(encoded) >= at + 5:
        return 5 + int(struct.unpack_from(">I", encoded, at + 1)[0])
    size = _SIZES.get(kind)
    return None if size is None else 1 + size

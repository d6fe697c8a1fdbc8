"""Of properties that pika cannot decode, everything else is still read."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties
from pika.frame import Header

from worker.amqp.mark import HeaderCheck, HeaderMark
from worker.amqp.pika_fixes import UNREADABLE_HEADER, PikaConnection, UnreadableProperties
from worker.amqp.salvage import salvage

BEYOND_THE_LAST_YEAR = b"T" + struct.pack(">Q", 1_768_469_398_000)
IN_A_LIST = b"A" + struct.pack(">I", len(BEYOND_THE_LAST_YEAR)) + BEYOND_THE_LAST_YEAR
UNKNOWN = b"Z" + b"12345678"


def properties(*entries: tuple[bytes, bytes]) -> bytes:
    """Encoded properties with a content type, these headers, and everything after them."""
    table = b"".join(bytes([len(name)]) + name + value for name, value in entries)
    rest = BasicProperties(
        delivery_mode=2, priority=3, correlation_id="c", message_id="m-1", timestamp=1_768_469_398, app_id="dms"
    )
    tail = b"".join(rest.encode())
    flags = struct.unpack(">H", tail[:2])[0] | 1 << 15 | 1 << 13
    return struct.pack(">H", flags) + b"\x0aimage/jpeg" + struct.pack(">I", len(table)) + table + tail[2:]


def text(value: bytes) -> bytes:
    return b"S" + struct.pack(">I", len(value)) + value


@pytest.mark.parametrize("odd", [BEYOND_THE_LAST_YEAR, IN_A_LIST], ids=["a time in milliseconds", "in a list"])
def test_a_value_that_cannot_be_decoded_is_left_out_alone(odd: bytes) -> None:
    encoded = properties((b"asset_id", text(b"7")), (b"sent", odd), (b"site", text(b"intranet")))
    with pytest.raises(ValueError, match="year"):
        BasicProperties().decode(encoded)

    found = salvage(encoded)

    assert found["headers"] == {"asset_id": "7", "site": "intranet"}
    assert (found["content_type"], found["message_id"], found["timestamp"]) == ("image/jpeg", "m-1", 1_768_469_398)
    assert (found["priority"], found["correlation_id"], found["app_id"]) == (3, "c", "dms")


def test_behind_a_value_of_an_unknown_type_the_properties_are_still_read() -> None:
    found = salvage(properties((b"asset_id", text(b"7")), (b"odd", UNKNOWN), (b"site", text(b"lost"))))

    assert found["headers"] == {"asset_id": "7"}
    assert (found["content_type"], found["message_id"]) == ("image/jpeg", "m-1")


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda noise: properties((b"a", noise))))
def test_no_bytes_raise_anything(encoded: bytes) -> None:
    UnreadableProperties(ValueError("x"), encoded)


def test_a_user_that_pika_alone_would_read_is_not_read() -> None:
    # Given properties in which the first word of flags announces another one. RabbitMQ 3.10 and 4.0 take none: they
    # have compared the user "mallory", and a classic queue of 3.10 hands the same bytes on.
    flags = struct.pack(">H", 1 << 7 | 1 << 4 | 1 << 3 | 1)  # message id, user, app
    encoded = flags + b"\x02\x00\x09" + b"\x07mallory" + b"\x0a\x08acme-dms\x00"
    assert BasicProperties().decode(encoded).user_id == "acme-dms"

    frame = b"".join([struct.pack(">BHLHHQ", 2, 1, 12 + len(encoded), 60, 0, 5), encoded, b"\xce"])
    connection = object.__new__(PikaConnection)
    connection._frame_buffer = frame
    size_bytes, read = connection._read_frame()

    assert (size_bytes, type(read)) == (len(frame), Header)
    assert isinstance(read.properties, UnreadableProperties)
    assert read.properties.user_id == "mallory"


def test_headers_of_ours_among_them_are_dropped_and_the_note_is_kept() -> None:
    encoded = properties((b"x-autotag-attempt", b"I\0\0\0\x63"), (b"sent", BEYOND_THE_LAST_YEAR), (b"site", text(b"s")))
    made = UnreadableProperties(ValueError("year 58000 is out of range"), encoded)
    HeaderCheck(HeaderMark(b"k" * 32)).on_arrival(made, b"")

    assert made.headers == {"site": "s", UNREADABLE_HEADER: "ValueError: year 58000 is out of range"}

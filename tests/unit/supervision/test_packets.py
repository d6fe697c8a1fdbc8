"""Packets and descriptors over a real socket pair; a malformed packet is refused and leaks no descriptor."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.processes import open_descriptors
from worker.settings import TensorFlowSettings
from worker.supervision import packets
from worker.supervision.packets import ProtocolError


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    parent_end, child_end = packets.socket_pair()
    with parent_end, child_end:
        yield parent_end, child_end


def test_a_packet_and_its_descriptors_arrive_whole(ends: tuple[socket.socket, socket.socket], tmp_path: object) -> None:
    parent_end, child_end = ends
    memory = os.memfd_create("test")
    os.write(memory, b"pixels")
    packets.send(parent_end, packets.pack("score", {"floors": [0.1]}), [memory])
    received = packets.receive(child_end, maximum_fds=1)
    assert received is not None
    packet, fds = received
    assert packet == {"kind": "score", "floors": [0.1]}
    assert os.pread(fds[0], 10, 0) == b"pixels"
    assert not os.get_inheritable(fds[0])
    packets.close_all([*fds, memory])


def test_packets_are_neither_split_nor_joined(ends: tuple[socket.socket, socket.socket]) -> None:
    parent_end, child_end = ends
    for kind in ("one", "two"):
        packets.send(child_end, packets.pack(kind))
    first, second = packets.receive(parent_end, maximum_fds=0), packets.receive(parent_end, maximum_fds=0)
    assert first is not None
    assert second is not None
    assert (first[0]["kind"], second[0]["kind"]) == ("one", "two")


def test_the_largest_packet_can_be_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    parent_end, child_end = ends
    data = packets.pack("x", {"bytes": b"\0" * (packets.MAXIMUM_PACKET_BYTES - 20)})
    packets.send(parent_end, data)
    assert packets.receive(child_end, maximum_fds=0) is not None
    with pytest.raises(ValueError, match="at most"):
        packets.pack("x", {"bytes": b"\0" * packets.MAXIMUM_PACKET_BYTES})


def test_a_full_answer_fits_into_a_packet() -> None:
    item = {"labels": b"\0" * 2 * packets.MAXIMUM_LABELS, "confidences": b"\0" * 4 * packets.MAXIMUM_LABELS}
    assert len(packets.pack("done", {"items": [item] * packets.MAXIMUM_FDS})) < packets.MAXIMUM_PACKET_BYTES


def test_the_largest_batch_of_the_settings_fits_into_a_packet() -> None:
    assert TensorFlowSettings(batch_size=packets.MAXIMUM_FDS).batch_size == packets.MAXIMUM_FDS
    with pytest.raises(ValidationError):
        TensorFlowSettings(batch_size=packets.MAXIMUM_FDS + 1)


def test_a_closed_socket_is_received_as_none(ends: tuple[socket.socket, socket.socket]) -> None:
    parent_end, child_end = ends
    child_end.close()
    assert packets.receive(parent_end, maximum_fds=0) is None


def test_an_empty_socket_is_not_a_closed_one(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(BlockingIOError):
        packets.receive(ends[0], maximum_fds=0)


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb(["kind"]),
        msgpack.packb({"no": "kind"}),
        msgpack.packb({"kind": 7}),
        msgpack.packb({"kind": "x"}) + b"more",
        msgpack.packb({1: "x"}),
        b"\x81" * 5000,
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_a_malformed_packet_is_refused(ends: tuple[socket.socket, socket.socket], data: bytes) -> None:
    parent_end, child_end = ends
    child_end.send(data)
    with pytest.raises(ProtocolError):
        packets.receive(parent_end, maximum_fds=0)


@given(st.binary(min_size=1, max_size=300))
def test_no_bytes_raise_another_error(data: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(packets.unpack(data)["kind"], str)


def test_an_oversize_packet_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    parent_end, child_end = ends
    child_end.send(b"\0" * (packets.MAXIMUM_PACKET_BYTES + 1))
    with pytest.raises(ProtocolError, match="larger"):
        packets.receive(parent_end, maximum_fds=0)


@pytest.mark.parametrize("sent", [1, 3, 50])
def test_descriptors_beyond_the_maximum_are_refused_and_closed(
    ends: tuple[socket.socket, socket.socket], sent: int
) -> None:
    parent_end, child_end = ends
    before = open_descriptors()
    socket.send_fds(child_end, [packets.pack("done")], [child_end.fileno()] * sent)
    with pytest.raises(ProtocolError):
        packets.receive(parent_end, maximum_fds=0)
    assert open_descriptors() == before


def test_descriptors_of_a_malformed_packet_are_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    parent_end, child_end = ends
    before = open_descriptors()
    socket.send_fds(child_end, [b"garbage"], [child_end.fileno()])
    with pytest.raises(ProtocolError):
        packets.receive(parent_end, maximum_fds=4)
    assert open_descriptors() == before

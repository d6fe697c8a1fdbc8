"""Packets and descriptors over a real socket pair; anything malformed is refused and leaks nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.supervision import packets
from worker.supervision.packets import ProtocolError


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = packets.socket_pair()
    with ours, theirs:
        yield ours, theirs


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_packet_and_its_descriptors_arrive_whole(ends: tuple[socket.socket, socket.socket], tmp_path: object) -> None:
    ours, theirs = ends
    memory = os.memfd_create("test")
    os.write(memory, b"pixels")
    packets.send(ours, packets.pack("score", {"floors": [0.1]}), [memory])
    received = packets.receive(theirs, maximum_fds=1)
    assert received is not None
    packet, fds = received
    assert packet == {"kind": "score", "floors": [0.1]}
    assert os.pread(fds[0], 10, 0) == b"pixels"
    assert not os.get_inheritable(fds[0])
    packets.close_all([*fds, memory])


def test_packets_are_neither_cut_nor_joined(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    for kind in ("one", "two"):
        packets.send(theirs, packets.pack(kind))
    first, second = packets.receive(ours, maximum_fds=0), packets.receive(ours, maximum_fds=0)
    assert first is not None
    assert second is not None
    assert (first[0]["kind"], second[0]["kind"]) == ("one", "two")


def test_the_largest_packet_can_be_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    data = packets.pack("x", {"bytes": b"\0" * (packets.MAXIMUM_PACKET_BYTES - 20)})
    packets.send(ours, data)
    assert packets.receive(theirs, maximum_fds=0) is not None
    with pytest.raises(ValueError, match="at most"):
        packets.pack("x", {"bytes": b"\0" * packets.MAXIMUM_PACKET_BYTES})


def test_a_full_answer_fits_into_a_packet() -> None:
    item = {"labels": b"\0" * 2000, "confidences": b"\0" * 4000}
    assert len(packets.pack("done", {"items": [item] * packets.MAXIMUM_FDS})) < packets.MAXIMUM_PACKET_BYTES


def test_a_closed_socket_is_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()
    assert packets.receive(ours, maximum_fds=0) is None


def test_nothing_there_is_not_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
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
def test_what_is_no_packet_is_refused(ends: tuple[socket.socket, socket.socket], data: bytes) -> None:
    ours, theirs = ends
    theirs.send(data)
    with pytest.raises(ProtocolError):
        packets.receive(ours, maximum_fds=0)


@given(st.binary(min_size=1, max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(packets.unpack(data)["kind"], str)


def test_an_oversize_packet_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.send(b"\0" * (packets.MAXIMUM_PACKET_BYTES + 1))
    with pytest.raises(ProtocolError, match="larger"):
        packets.receive(ours, maximum_fds=0)


@pytest.mark.parametrize("sent", [1, 3, 50])
def test_descriptors_that_nobody_asked_for_are_refused_and_closed(
    ends: tuple[socket.socket, socket.socket], sent: int
) -> None:
    ours, theirs = ends
    before = open_fds()
    socket.send_fds(theirs, [packets.pack("done")], [theirs.fileno()] * sent)
    with pytest.raises(ProtocolError):
        packets.receive(ours, maximum_fds=0)
    assert open_fds() == before


def test_descriptors_of_a_malformed_packet_are_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    before = open_fds()
    socket.send_fds(theirs, [b"garbage"], [theirs.fileno()])
    with pytest.raises(ProtocolError):
        packets.receive(ours, maximum_fds=4)
    assert open_fds() == before

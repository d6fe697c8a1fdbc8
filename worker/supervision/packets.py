"""The protocol between the parent and a child: packets over a socket, and the file descriptors sent with them.

A packet is one msgpack map with a `kind`, in one datagram of a SOCK_SEQPACKET socket, so that packets are never split
or joined. Received packets are not trusted: only plain values are read, sizes are bounded before anything is parsed,
and file descriptors from a child are refused.

Parent to child: `begin` (settings), a job's own kinds, `ping`, `stop`. Child to parent: `hello` or `hopeless` once,
then exactly one packet for each job (`done`, `refused`) or `ping` (`pong`).
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgpack

Packet = dict[str, Any]

MAXIMUM_FDS = 16
"""Most descriptors in one packet: the size of the largest batch of images."""

MAXIMUM_LABELS = 1000
"""Most labels in the scores of one image."""

MAXIMUM_PACKET_BYTES = 192 << 10
"""A full batch with MAXIMUM_LABELS for each image, at six bytes a label, takes half of it."""

_FD_BYTES = array.array("i").itemsize

# Plain numbers: combining enum flags for every packet costs as much as parsing the packet.
_TRUNCATED = int(socket.MSG_TRUNC) | int(socket.MSG_CTRUNC)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_RIGHTS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))

_buffer = bytearray(MAXIMUM_PACKET_BYTES)
"""The receive buffer, shared by all sockets of the process: it receives in one thread only, and allocating a buffer of
this size for every packet is slow."""


class ProtocolError(Exception):
    """The other end has sent something that the protocol does not allow."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The parent's end, non-blocking, and the child's end, blocking. Both can send a packet of the maximum size."""
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (parent_end, child_end):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAXIMUM_PACKET_BYTES)
    parent_end.setblocking(False)
    return parent_end, child_end


def pack(kind: str, fields: Mapping[str, object] | None = None) -> bytes:
    """Serialize one packet. Raises `ValueError` when it is too large to send."""
    data: bytes = msgpack.packb({"kind": kind, **(fields or {})})
    if len(data) > MAXIMUM_PACKET_BYTES:
        raise ValueError(f"a {kind} packet of {len(data)} bytes; at most {MAXIMUM_PACKET_BYTES} can be sent")
    return data


def unpack(data: bytes) -> Packet:
    """Parse one packet. Raises `ProtocolError` for anything but a map with a `kind`."""
    try:
        packet = msgpack.unpackb(data, strict_map_key=True)
    except Exception as error:  # msgpack raises no common base class for malformed input
        raise ProtocolError(f"{len(data)} bytes that are no packet ({type(error).__name__})") from error
    if not isinstance(packet, dict) or not isinstance(packet.get("kind"), str):
        raise ProtocolError(f"a packet that is no map with a kind, but {type(packet).__name__}")
    return packet


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet. Raises `OSError`; `BlockingIOError` when the other end has stopped reading."""
    socket.send_fds(sock, [data], list(fds)) if fds else sock.send(data)


def receive(sock: socket.socket, *, maximum_fds: int) -> tuple[Packet, list[int]] | None:
    """The next packet and its descriptors, close-on-exec; None when the other end has closed.

    Raises `ProtocolError` for a packet that is too large, malformed, or has more than `maximum_fds` descriptors;
    its descriptors have then been closed. Raises `BlockingIOError` when there is nothing to read.
    """
    received = receive_packed(sock, maximum_fds=maximum_fds)
    if received is None:
        return None
    data, fds = received
    try:
        return unpack(data), fds
    except ProtocolError:
        close_all(fds)
        raise


def receive_packed(sock: socket.socket, *, maximum_fds: int) -> tuple[bytes, list[int]] | None:
    """As `receive`, for one who passes the packet on."""
    # Space for one more than allowed, so that an excess is noticed here and not silently dropped by the kernel.
    space = socket.CMSG_SPACE((maximum_fds + 1) * _FD_BYTES)
    length, messages, flags, _ = sock.recvmsg_into([_buffer], space, _CLOSE_ON_EXEC)
    fds = _descriptors(messages) if messages else []
    if not length and not fds:
        return None
    if flags & _TRUNCATED or len(fds) > maximum_fds:
        close_all(fds)
        raise ProtocolError("a packet larger than allowed, or with more descriptors than allowed")
    return bytes(memoryview(_buffer)[:length]), fds


def duplicate_all(fds: Iterable[int]) -> list[int]:
    """Duplicates of descriptors, all or none. Raises `OSError`."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))  # noqa: PERF401 - those that there are so far must be closed after an error
    except OSError:
        close_all(copies)
        raise
    return copies


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors; one that is closed already is ignored."""
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def _descriptors(messages: Iterable[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in messages:
        if (level, kind) == _RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return list(fds)

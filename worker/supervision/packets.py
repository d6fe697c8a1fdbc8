"""What crosses the socket between the parent and a child: packets, and file descriptors that travel with them.

A packet is one msgpack map with a `kind`, in one datagram of a SOCK_SEQPACKET socket, so that a packet is never cut
or joined. Nothing that comes out of one is trusted: only plain values are read, sizes are bounded before anything is
taken apart, and a child's file descriptors are refused.

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

MAXIMUM_PACKET_BYTES = 192 << 10
"""Sixteen images with a thousand labels each, at six bytes a label, take half of it."""

MAXIMUM_FDS = 16
"""The largest batch."""

_FD_BYTES = array.array("i").itemsize

# Plain numbers: combining enum flags for every packet costs as much as taking the packet apart.
_CUT = int(socket.MSG_TRUNC) | int(socket.MSG_CTRUNC)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_RIGHTS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))

_incoming = bytearray(MAXIMUM_PACKET_BYTES)
"""Where packets arrive: a process receives in one thread only, and room for the largest would be made for each."""


class ProtocolError(Exception):
    """The other end has sent what it must not send."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The parent's end, non-blocking, and the child's end, blocking; both take a packet of the largest size."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAXIMUM_PACKET_BYTES)
    ours.setblocking(False)
    return ours, theirs


def pack(kind: str, fields: Mapping[str, object] | None = None) -> bytes:
    """One packet as bytes. Raises `ValueError` when it is too large to send."""
    data: bytes = msgpack.packb({"kind": kind, **(fields or {})})
    if len(data) > MAXIMUM_PACKET_BYTES:
        raise ValueError(f"a {kind} packet of {len(data)} bytes; at most {MAXIMUM_PACKET_BYTES} can be sent")
    return data


def unpack(data: bytes) -> Packet:
    """The map in `data`. Raises `ProtocolError` for anything else, or a map without a `kind`."""
    try:
        packet = msgpack.unpackb(data, strict_map_key=True)
    except Exception as error:  # msgpack has no common base for what malformed input raises
        raise ProtocolError(f"{len(data)} bytes that are no packet ({type(error).__name__})") from error
    if not isinstance(packet, dict) or not isinstance(packet.get("kind"), str):
        raise ProtocolError(f"a packet that is no map with a kind, but {type(packet).__name__}")
    return packet


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet. Raises `OSError`: `BlockingIOError` when the other end has stopped reading."""
    socket.send_fds(sock, [data], list(fds)) if fds else sock.send(data)


def receive(sock: socket.socket, *, maximum_fds: int) -> tuple[Packet, list[int]] | None:
    """The next packet and its descriptors, close-on-exec; None when the other end has closed.

    Raises `ProtocolError` for a packet that is too large, malformed, or has more than `maximum_fds` descriptors;
    descriptors that came with it have then been closed. `BlockingIOError` when nothing has come.
    """
    # Room for one more than allowed, so that a surplus is seen here and not silently dropped by the kernel.
    room = socket.CMSG_SPACE((maximum_fds + 1) * _FD_BYTES)
    length, messages, flags, _ = sock.recvmsg_into([_incoming], room, _CLOSE_ON_EXEC)
    fds = _descriptors(messages) if messages else []
    if not length and not fds:
        return None
    if flags & _CUT or len(fds) > maximum_fds:
        close_all(fds)
        raise ProtocolError("a packet larger than allowed, or with more descriptors than allowed")
    try:
        return unpack(bytes(memoryview(_incoming)[:length])), fds
    except ProtocolError:
        close_all(fds)
        raise


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that nobody needs any more."""
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def _descriptors(messages: Iterable[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in messages:
        if (level, kind) == _RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return list(fds)

"""Loopback ports: finds free ones, and checks what listens on one."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable

from pika import frame, spec


def free_ports(count: int) -> list[int]:
    """Unused ports of 127.0.0.1, below the range from which the kernel takes ports for outgoing connections.

    A port of that range could be given to a client while the test's broker is down.
    """
    with contextlib.ExitStack() as held:  # all stay bound until the last is found, so that they differ
        ports: list[int] = []
        while len(ports) < count:
            port = 15_000 + secrets.randbelow(17_000)
            with contextlib.suppress(OSError):
                holder = held.enter_context(socket.socket())
                holder.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def accepts_connections(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens on this port."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def speaks_amqp(port: int, host: str = "127.0.0.1") -> bool:
    """Whether an AMQP 0-9-1 broker listens on this port: it replies to the protocol header with a method frame."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def broker_version(port: int, host: str = "127.0.0.1") -> str | None:
    """The version that an AMQP 0-9-1 broker names in its first frame; None if none listens on this port."""
    received = b""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            while data := connection.recv(4096):
                received += data
                _, start = frame.decode_frame(received)
                if isinstance(start, frame.Method) and isinstance(start.method, spec.Connection.Start):
                    return str((start.method.server_properties or {}).get("version", ""))
    except OSError:
        pass
    return None


def poll(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Wait until the condition holds. Raises TimeoutError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"Waited {timeout_s:g} s in vain until {what}.")
        time.sleep(0.02)

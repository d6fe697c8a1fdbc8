"""Loopback ports: free ones, and what answers on one."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, below the range the kernel gives to outgoing connections.

    From that range, a client might be handed the port of a broker that a test has just killed.
    """
    with contextlib.ExitStack() as held:  # all are held until the last is found, so that they differ
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
    """Whether an AMQP 0-9-1 broker answers on this port: it sends a method frame once it is told the protocol."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def poll(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Wait until the condition holds; raises TimeoutError when it does not within the time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"Waited {timeout_s:g} s in vain until {what}.")
        time.sleep(0.02)

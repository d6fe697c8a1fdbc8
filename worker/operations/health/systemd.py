"""Notifications to systemd: the service is ready, reloading or stopping; its status; its event loop is alive.

The protocol is one datagram of `NAME=value` lines to the socket that NOTIFY_SOCKET names (sd_notify(3)). Without that
variable nothing is sent.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping

from worker.operations.printable import printable


class Notifier:
    """Sends the notifications. One that cannot be sent is dropped silently: the service does not depend on them."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        """`address`: the socket's path, or a name in the abstract namespace where it begins with `@`."""
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self.watchdog_interval_s = watchdog_s / 2 if watchdog_s else math.inf
        """How often `alive` must be called: half the time after which systemd considers the service dead."""
        self._sent_alive_at_s = -math.inf
        self._status = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """The notifier that systemd's environment variables ask for; one that sends nothing if they are not set."""
        ours = environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        usec = environ.get("WATCHDOG_USEC", "") if ours else ""
        return cls(environ.get("NOTIFY_SOCKET"), int(usec) / 1e6 if usec.isdecimal() else None)

    def ready(self) -> None:
        """The start, or a reload, is complete."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The settings are being reloaded; `ready` follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service is stopping."""
        self._send("STOPPING=1")

    def still_starting(self, extend_s: float) -> None:
        """The start makes progress, and may take `extend_s` from now until the next notification."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(extend_s * 1e6)}")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows; sent only if it has changed."""
        line = printable(" ".join(text.split()))
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def alive(self, now_s: float) -> None:
        """The event loop is running. Sent if half of the watchdog's time has passed since the last one."""
        if now_s - self._sent_alive_at_s >= self.watchdog_interval_s:
            self._sent_alive_at_s = now_s
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)  # a manager that does not read must not block the loop
            out.sendto("\n".join(lines).encode(), self._address)

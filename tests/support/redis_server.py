"""A Redis server of Debian's package, for one test: loopback only, a port of its own, nothing kept."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.polling import until

PASSWORD = "redis-MARKER-password"


class RedisServer:
    """A server that a test may stop and start again."""

    def __init__(self, directory: Path) -> None:
        self._program = shutil.which("redis-server")
        if self._program is None:
            pytest.fail("This test needs redis-server: run scripts/install_tools.sh, which installs Debian's package.")
        self._directory = directory
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert self._program is not None
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "requirepass": PASSWORD,
            "save": "",
            "appendonly": "yes",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [self._program, *arguments, "--dir", str(self._directory)], stdout=subprocess.DEVNULL
        )
        until(self._accepts, "Redis accepts connections")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _accepts(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """A running server; it is stopped at the end."""
    server = RedisServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()

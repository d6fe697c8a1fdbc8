"""RabbitMQ in a container, for machines where it cannot be installed: enough for tests and the demonstration."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from guardian import GuardedProcesses
from ports import free_ports, poll, speaks_amqp

NEWEST_VERSION = 4
USER = "autotag"
START_TIMEOUT_S = 300.0  # the image may have to be pulled


def engine() -> str | None:
    """The first of docker and podman that is installed and works; None if neither does."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], check=False, capture_output=True).returncode == 0:
            return name
    return None


def image(version: int | None) -> str:
    """The image of the newest RabbitMQ with this major version; None: of any."""
    return f"docker.io/library/rabbitmq:{version or NEWEST_VERSION}"


class ContainerBroker:
    """A RabbitMQ container. A context manager: started on entry, removed on exit. `engine` is `docker` or `podman`."""

    def __init__(self, engine: str, image: str) -> None:
        self._engine, self._image = engine, image
        (self._port,) = free_ports(1)
        self._password = secrets.token_hex(8)
        self.url = f"amqp://{USER}:{self._password}@127.0.0.1:{self._port}/%2F"

    def __enter__(self) -> Self:
        name = f"autotag-{secrets.token_hex(4)}"
        directory = Path(tempfile.mkdtemp(prefix="autotag-broker-"))
        # Killing the engine's client does not end the container, so the guardian's cleanup command removes it by name.
        self._processes = GuardedProcesses(directory, [self._engine, "rm", "--force", name])
        argv = [self._engine, "run", "--rm", "--name", name, "--publish", f"127.0.0.1:{self._port}:5672"]
        argv += ["--env", f"RABBITMQ_DEFAULT_USER={USER}", "--env", f"RABBITMQ_DEFAULT_PASS={self._password}"]
        self._processes.spawn([*argv, self._image], dict(os.environ), directory / "console.log")
        try:
            poll(lambda: speaks_amqp(self._port), "the container answers", START_TIMEOUT_S)
        except BaseException as error:
            error.add_note((directory / "console.log").read_text(errors="replace")[-2000:])
            self._processes.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.close()

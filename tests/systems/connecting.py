"""A service with its model and a connector, both real and both of one configuration, for a system under test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from ports import free_ports

from tests.support.polling import until
from tests.support.service import RunningService, running_service

INLET_TOKEN = "inlet-MARKER-token-0123456789"


@dataclass(frozen=True)
class RunningConnector:
    """One `autotag connect`. Its log is in `log`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def is_ready(self) -> bool:
        """Whether it takes what inlets are sent."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def inlet(self, name: str) -> str:
        """The address of a connection's inlet."""
        return f"{self.url}/in/{name}"


@contextmanager
def running_connector(service: RunningService, folder: Path) -> Iterator[RunningConnector]:
    """`autotag connect` with the settings of a service, for the length of the block."""
    (port,) = free_ports(1)
    log = folder / "connect.jsonl"
    environment = {
        **service.environment,
        "AUTOTAG_CONNECTOR__HTTP__PORT": str(port),
        "AUTOTAG_STATE_DIR": str(folder / "connect-state"),
    }
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-m", "worker", "connect"], env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            connector = RunningConnector(process, f"http://127.0.0.1:{port}", log)
            until(connector.is_ready, f"the connector is ready; its log is {log}")
            yield connector
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def connected(broker: str, prefix: str, folder: Path, configuration: str) -> Iterator[RunningConnector]:
    """Both processes, with a configuration file; each is ready."""
    file = folder / "autotag.toml"
    file.write_text(configuration)
    file.chmod(0o600)
    with (
        running_service(
            broker, prefix, folder, CONFIG=str(file), TENSORFLOW__MODELS='["efficientnet-lite2", "picture-kind"]'
        ) as service,
        running_connector(service, folder) as connector,
    ):
        service.ready(within_s=120)
        yield connector
        assert service.stop() == 0


def program(name: str) -> str | None:
    """A program of the environment's own, or on PATH."""
    for place in (Path(sys.executable).parent, *map(Path, os.environ["PATH"].split(os.pathsep))):
        if (place / name).exists():
            return str(place / name)
    return None

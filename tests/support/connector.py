"""A real `autotag connect` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ports import free_ports
from prometheus_client.parser import text_string_to_metric_families

from tests.support.polling import until

INLET_TOKEN = "inlet-MARKER-token-0123456789"


@dataclass
class RunningConnector:
    """One connector. Its log is in `log`."""

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

    def post(self, name: str, said: Any, **headers: str) -> httpx.Response:
        """Send what a system says, with the token."""
        sent = {"Authorization": f"Bearer {INLET_TOKEN}", **headers}
        if isinstance(said, bytes):
            return httpx.post(self.inlet(name), content=said, headers=sent, timeout=30)
        return httpx.post(self.inlet(name), json=said, headers=sent, timeout=30)

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        status: dict[str, Any] = httpx.get(f"{self.url}/status", timeout=60).json()
        return status

    def counted(self, metric: str, **labels: str) -> float:
        """The value of a counter; 0 for one that was never counted."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(each.value for each in samples if each.name == metric and labels.items() <= each.labels.items())

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)

    def logged(self) -> str:
        """All it has logged so far."""
        return self.log.read_text(errors="replace")


@contextmanager
def running_connector(
    broker: str, prefix: str, folder: Path, configuration: str, environment: Mapping[str, str] | None = None
) -> Iterator[RunningConnector]:
    """A connector with a configuration file, ready, for the length of the block. One that still runs then is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "connect.toml"
    file.write_text(configuration)
    file.chmod(0o600)
    (port,) = free_ports(1)
    log = folder / "connect.jsonl"
    others = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    settings = {
        "AUTOTAG_CONFIG": str(file),
        "AUTOTAG_AMQP__URL": broker,
        "AUTOTAG_AMQP__QUEUE_PREFIX": prefix,
        "AUTOTAG_AMQP__RECONNECT_MAX_S": "1",
        "AUTOTAG_CONNECTOR__HTTP__PORT": str(port),
        "AUTOTAG_STATE_DIR": str(folder / "connect-state"),
        "AUTOTAG_LOG__FORMAT": "json",
    }
    command = [sys.executable, "-m", "worker", "--traceable", "connect"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env={**others, **settings, **(environment or {})}, stdout=output, stderr=output
        )
    connector = RunningConnector(process, f"http://127.0.0.1:{port}", log)
    try:
        until(connector.is_ready, f"the connector is ready; its log is {log}")
        yield connector
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)

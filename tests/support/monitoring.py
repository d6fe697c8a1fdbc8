"""What a monitoring system does: requests over HTTP, scraping by a real Prometheus, checks with promtool."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from ports import free_ports
from prometheus_client.parser import text_string_to_metric_families

from tests.support.polling import until
from tests.support.service import RunningService

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Message
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def fetch(url: str, headers: Mapping[str, str] | None = None, *, tls: ssl.SSLContext | None = None) -> Answer:
    """GET. An error status is returned like any other."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - the test's own URL
    try:
        with urllib.request.urlopen(request, timeout=60, context=tls) as response:  # noqa: S310 - see above
            return Answer(response.status, response.headers, response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read().decode())


def http_url(service: RunningService) -> str:
    """The URL of a service that was given port 0, from its log."""

    def logged_url() -> str | None:
        lines = (json.loads(line) for line in service.logged().splitlines() if line.startswith("{"))
        return next((line["url"] for line in lines if line["event"] == "listening for HTTP"), None)

    return str(until(logged_url, "it logged where it listens"))


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    """The value of one sample. Raises KeyError if it does not exist."""
    return samples(text)[name, frozenset(labels.items())]


def total(text: str, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels, among others."""
    return sum(number for (each, has), number in samples(text).items() if each == name and has >= set(labels.items()))


def promtool(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool. Fails the test if it is not installed."""
    return subprocess.run(
        [tool("promtool"), *arguments], input=given, capture_output=True, text=True, timeout=60, check=False
    )


def tool(name: str) -> str:
    """Path of one of Prometheus' programs. Fails the test if it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"This test needs {name}: run scripts/install_tools.sh, which installs Debian's package.")
    return path


class Prometheus:
    """A Prometheus that scrapes every second."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        series: list[dict[str, Any]] = self._data("query", query=expression)["result"]
        return series

    def alerts(self) -> dict[str, str]:
        """State of each alert that is pending or firing, by name."""
        return {each["labels"]["alertname"]: each["state"] for each in self._data("alerts")["alerts"]}

    def firing(self, group: str) -> dict[str, list[dict[str, str]]]:
        """The labels of what fires by the rules of a group, by the alert's name."""
        groups = {each["name"]: each for each in self._data("rules", type="alert")["groups"]}
        return {
            rule["name"]: [each["labels"] for each in rule["alerts"] if each["state"] == "firing"]
            for rule in groups[group]["rules"]
        }

    def targets(self) -> list[dict[str, Any]]:
        targets: list[dict[str, Any]] = self._data("targets")["activeTargets"]
        return targets

    def _data(self, what: str, **query: str) -> Any:
        answer = fetch(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(query)}")
        assert answer.status == 200, answer.body
        return answer.json()["data"]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """A real Prometheus with our scrape file and rules; only the target and the intervals are changed."""
    shutil.copytree(ROOT / "deploy/prometheus/rules", folder / "rules")
    config = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    for ours, here in (("autotag:9464", target), ("_interval: 15s", "_interval: 1s")):
        assert ours in config
        config = config.replace(ours, here)
    (folder / "prometheus.yml").write_text(config)
    with prometheus_of(folder) as server:
        yield server


@contextmanager
def prometheus_of(folder: Path) -> Iterator[Prometheus]:
    """A real Prometheus with the `prometheus.yml` in the folder, where its data and its log go, too."""
    (port,) = free_ports(1)
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: _answers(f"{url}/-/ready"), f"Prometheus came up; {folder / 'prometheus.log'}", within_s=30)
            yield Prometheus(url)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _answers(url: str) -> bool:
    try:
        return fetch(url).status == 200
    except OSError:
        time.sleep(0.1)
        return False

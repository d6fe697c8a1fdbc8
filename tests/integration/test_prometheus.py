"""A real Prometheus scrapes a real worker under load: every panel of the dashboard has data, and alerts fire."""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_google import FakeGoogle
from tests.support.monitoring import ROOT, Prometheus, http_url, prometheus
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service
from worker.messages import EVENT_TYPE

VARIABLES = (
    ("$__rate_interval", "15s"),
    ("$namespace", ".*"),
    ("$job", "autotag"),
    ("$instance", ".*"),
    ("$dms_instance", ".*"),
)
DASHBOARD = ROOT / "deploy/grafana/dashboards/autotag.json"


def panels() -> dict[str, list[str]]:
    """The expressions of each panel, with Grafana's variables filled in as Grafana would."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return {
        panel["title"]: [interpolate(target["expr"]) for target in panel["targets"]]
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    }


def interpolate(expression: str) -> str:
    for variable, replacement in VARIABLES:
        expression = expression.replace(variable, replacement)
    assert "$" not in expression
    return expression


def has_numbers(series: list[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(each["value"][1])) for each in series)


class Load:
    """Publishes photographs, some of them broken, some for an instance with a cloud service."""

    def __init__(self, dms: Dms, photographs: dict[str, Path], broken: Path) -> None:
        self._dms = dms
        self._photographs = photographs
        self._broken = broken

    def once(self) -> None:
        """Publish one of each and wait for all results."""
        files = [(file, instance) for file in self._photographs.values() for instance in ("default", "acme")]
        self._dms.results_of([self._publish(*each) for each in (*files, (self._broken, "default"))])

    def _publish(self, file: Path, instance: str) -> str:
        """Publish an event with its time of publication, for the wait in the queue."""
        event = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": "/load",
            "type": EVENT_TYPE,
            "time": datetime.now(UTC).isoformat(),
            "data": {"asset_id": file.stem, "instance": instance, "content": {"path": str(file)}},
        }
        self._dms.publish_body(json.dumps(event).encode(), content_type="application/cloudevents+json")
        return str(event["id"])


@pytest.fixture(scope="module")
def service(
    broker: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningService, Load]]:
    folder = tmp_path_factory.mktemp("watched")
    prefix = f"test-watched-{os.getpid()}"
    broken = folder / "broken.jpg"
    broken.write_bytes(photographs["coffee"].read_bytes()[:2000])
    with ExitStack() as stack:
        google = stack.enter_context(FakeGoogle("key-of-acme"))
        service = stack.enter_context(
            running_service(
                broker,
                prefix,
                folder,
                SOURCES__PATH_ROOTS=json.dumps([str(folder), str(photographs["coffee"].parent)]),
                INSTANCES__acme__GOOGLE_CLOUD_VISION__ENABLED="true",
                INSTANCES__acme__GOOGLE_CLOUD_VISION__API_KEY="key-of-acme",
                INSTANCES__acme__GOOGLE_CLOUD_VISION__ENDPOINT=google.url,
                INSTANCES__acme__GOOGLE_CLOUD_VISION__CALLS_PER_MONTH="100000",
                CLOUD__ALLOW_PRIVATE_ENDPOINTS="true",
                CLOUD__ALLOW_PLAIN_HTTP_ENDPOINTS="true",
                TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES="0",
                CANARY__ENABLED="true",
            )
        )
        service.ready()
        dms = Dms(broker, prefix)
        stack.callback(dms.close)
        yield service, Load(dms, photographs, broken)
        assert service.stop() == 0


@pytest.fixture(scope="module")
def watched(
    service: tuple[RunningService, Load], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningService, Load, Prometheus]]:
    running, load = service
    target = http_url(running).removeprefix("http://")
    with prometheus(tmp_path_factory.mktemp("prometheus"), target) as server:
        until(lambda: any(each["health"] == "up" for each in server.targets()), "the worker was scraped")
        yield running, load, server


@pytest.mark.timeout(240)
def test_every_panel_of_the_dashboard_has_data_under_load(watched: tuple[RunningService, Load, Prometheus]) -> None:
    _, load, server = watched
    without = {title: expressions for title, expressions in panels().items() if expressions}
    assert len(without) > 30

    # When there is load for a while
    deadline_s = time.monotonic() + 60
    while without and time.monotonic() < deadline_s:
        load.once()
        for title in list(without):
            if all(has_numbers(server.query(expression)) for expression in without[title]):
                del without[title]
    # Then each expression of each panel has given at least one series with a number
    assert without == {}


def test_a_healthy_worker_fires_no_alert_but_those_for_its_dead_letters(
    watched: tuple[RunningService, Load, Prometheus],
) -> None:
    _, _, server = watched
    assert set(server.alerts()) <= {"AutotagDeadLetters", "AutotagFailureRatio"}


def test_the_alert_for_a_disabled_model_fires_and_is_resolved(watched: tuple[RunningService, Load, Prometheus]) -> None:
    running, _, server = watched
    # Given a model that may not be relaunched
    (model,) = running.children("model")
    # When it dies
    model.kill()
    # Then Prometheus fires the alert, and resolves it after `autotag reset`
    until(lambda: server.alerts().get("AutotagModelDisabled") == "firing", "the alert fired")
    assert running.autotag("reset").returncode == 0
    until(lambda: "AutotagModelDisabled" not in server.alerts(), "the alert was resolved")
    running.ready()

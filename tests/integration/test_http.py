"""Health and metrics of a real `autotag run`, requested over HTTP as orchestrators and Prometheus do."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import trustme
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

from tests.support.monitoring import Answer, fetch, http_url, promtool, samples, total, value
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service
from worker.amqp.delivery import Ending
from worker.operations.metrics.events import STATUSES

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-http-{os.getpid()}"


@pytest.fixture(scope="module")
def service(
    broker: str, prefix: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    root = photographs["chelsea"].parent
    with running_service(broker, prefix, tmp_path_factory.mktemp("http"), SOURCES__PATH_ROOTS=str(root)) as service:
        yield service.ready()
        assert service.stop() == 0


@pytest.fixture(scope="module")
def url(service: RunningService) -> str:
    return http_url(service)


def metrics(url: str) -> str:
    return fetch(f"{url}/metrics").body


def test_a_worker_that_takes_events_is_alive_started_and_ready(url: str) -> None:
    assert fetch(f"{url}/livez").json()["alive"] is True
    assert fetch(f"{url}/startupz").json() == {"started": True}
    assert fetch(f"{url}/readyz").json() == {"ready": True, "reason": None, "why_not": None}


def test_the_metrics_pass_promtool(url: str) -> None:
    checked = promtool("check", "metrics", given=metrics(url))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_counters_exist_at_zero_before_anything_has_happened(broker: str, tmp_path: Path) -> None:
    with running_service(broker, f"test-zero-{os.getpid()}", tmp_path) as service:
        text = metrics(http_url(service))
        service.stop()
    for ending in Ending:
        assert value(text, "autotag_events_total", ending=ending, reason="", dms_instance="default") == 0
    for status in STATUSES:
        assert value(text, "autotag_results_total", status=status, reason="", dms_instance="default") == 0
    assert value(text, "autotag_child_crashes_total", kind="model", reason="killed_by_sigkill", counted="true") == 0
    assert value(text, "autotag_stage_duration_seconds_count", stage="google_cloud_vision") == 0


def increase(before: str, after: str, name: str, **labels: str) -> float:
    return total(after, name, **labels) - total(before, name, **labels)


def metrics_once_counted(url: str, before: str, number: int) -> str:
    """The metrics once so many more events were settled than `before`."""
    until(lambda: increase(before, metrics(url), "autotag_events_total") == number, "every event was counted")
    return metrics(url)


def test_every_event_is_counted_once(url: str, dms: Dms, photographs: dict[str, Path]) -> None:
    before = metrics(url)
    dms.results_of([dms.publish({"path": str(file)}) for file in photographs.values()])
    number = len(photographs)
    after = metrics_once_counted(url, before, number)
    assert increase(before, after, "autotag_events_total", ending="answered") == number
    assert increase(before, after, "autotag_results_total") == number
    assert increase(before, after, "autotag_model_batch_images_sum") == number
    assert time.time() - value(after, "autotag_last_success_timestamp_seconds") < 60


def test_the_stages_of_an_event_add_up_to_the_whole(url: str, dms: Dms, photographs: dict[str, Path]) -> None:
    # Of each event, one after the other; where a busy machine lets the service wait between stages, that is in none
    unexplained: list[float] = []
    for file in [*photographs.values()] * 10:
        before = metrics(url)
        dms.results_of([dms.publish({"path": str(file)})])
        after = metrics_once_counted(url, before, 1)
        whole = increase(before, after, "autotag_event_duration_seconds_sum")
        parts = sum(
            increase(before, after, "autotag_stage_duration_seconds_sum", stage=stage)
            for stage in ("fetch", "decode", "model", "publish")
        )
        assert parts <= whole
        unexplained.append(whole - parts)
        if unexplained[-1] < max(0.05 * whole, 0.004):
            return
    raise AssertionError(f"the stages never explain almost all of an event's time; seconds left: {unexplained}")


def test_a_client_that_accepts_openmetrics_gets_exemplars_with_traces(
    url: str, dms: Dms, photographs: dict[str, Path]
) -> None:
    # Given an event that belongs to a trace
    body = json.dumps({"asset_id": "traced", "content": {"path": str(photographs["coffee"])}}).encode()
    headers = {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": "traced-1",
        "cloudEvents:source": "/dms",
        "cloudEvents:type": "dms.image.uploaded.v1",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    }
    dms.publish_body(body, headers=headers)
    dms.results_of(["traced-1"])
    # When the metrics are requested as OpenMetrics
    answer = fetch(f"{url}/metrics", {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    # Then they are sent as such, and the histograms name the trace
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    exemplars = {
        sample.exemplar.labels["trace_id"]
        for family in open_metrics(answer.body)
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert TRACE in exemplars


def test_the_crash_of_a_child_is_counted_and_loses_no_count(
    service: RunningService, url: str, dms: Dms, photographs: dict[str, Path]
) -> None:
    # Given a worker that has counted something
    dms.results_of([dms.publish({"path": str(photographs["coffee"])})])
    before = samples(metrics(url))
    # When its model child is killed
    service.children("model")[0].kill()
    labels = {"kind": "model", "reason": "killed_by_sigkill"}
    until(lambda: total(metrics(url), "autotag_child_relaunches_total", **labels) >= 1, "the relaunch was counted")
    # Then the crash is counted, and no counter has decreased
    after = metrics(url)
    assert total(after, "autotag_child_crashes_total", counted="true", **labels) >= 1
    now = samples(after)
    counters = [key for key in before if re.search("_(total|count|sum|bucket)$", key[0])]
    assert len(counters) > 100
    assert all(now[key] >= before[key] for key in counters)
    service.ready()


def test_the_parent_stays_small_with_http_on(service: RunningService, url: str) -> None:
    resident_bytes = psutil.Process(service.process.pid).memory_info().rss
    assert resident_bytes < 88e6
    assert value(metrics(url), "process_resident_memory_bytes") < 88e6


def test_the_queues_are_shown_by_their_role(service: RunningService, url: str, prefix: str) -> None:
    until(lambda: (service.status() or {})["queues"], "the broker has reported their depths")
    # Depths are polled every few seconds, so that an event of the previous test may still be included
    until(lambda: value(metrics(url), "autotag_queue_messages", queue="images.live") == 0, "it is reported to be empty")
    text = metrics(url)
    assert value(text, "autotag_queue_messages", queue="dead-letters") == 0
    assert prefix not in text


# ── readiness ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_paused_worker_is_not_ready_and_reports_who_paused_it(service: RunningService, url: str) -> None:
    assert service.autotag("pause").returncode == 0
    answer = fetch(f"{url}/readyz")
    assert answer.status == 503
    assert answer.json()["reason"] == "by_operator"
    assert "autotag resume" in answer.json()["why_not"]
    assert fetch(f"{url}/livez").status == 200
    assert service.autotag("resume").returncode == 0
    until(lambda: fetch(f"{url}/readyz").status == 200, "it took events again")


def test_without_its_broker_a_worker_is_not_ready_within_five_seconds_and_ready_again_after(
    private_broker: Callable[..., object], tmp_path: Path
) -> None:
    node = private_broker()
    with running_service(node.url, "test-gone", tmp_path) as service:  # type: ignore[attr-defined]
        service.ready()
        url = http_url(service)
        # When the broker dies
        node.kill()  # type: ignore[attr-defined]
        # Then the worker reports it with the reason, and stays alive
        answer = until(lambda: not_ready(url), "it was no longer ready", within_s=5)
        assert "RabbitMQ" in answer.json()["why_not"]
        assert fetch(f"{url}/livez").status == 200
        assert fetch(f"{url}/startupz").status == 200
        # And when it is back, the worker is ready again
        node.start()  # type: ignore[attr-defined]
        until(lambda: fetch(f"{url}/readyz").status == 200, "it was ready again", within_s=60)
        until(lambda: total(metrics(url), "autotag_broker_reconnects_total") >= 1, "the reconnect was counted")
        assert service.stop() == 0


WITHOUT_A_CAUSE = (None, "broker_connecting", "not_consuming")
"""Reasons that may be given for a moment, until the cause is known."""


def not_ready(url: str) -> Answer | None:
    """The answer of a service that is not ready and says why."""
    answer = fetch(f"{url}/readyz")
    return answer if answer.status == 503 and answer.json()["reason"] not in WITHOUT_A_CAUSE else None


# ── access ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_with_a_token_and_a_certificate_others_see_no_more_than_whether_it_is_healthy(
    broker: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    token = "marker-token-8c1f09"
    with running_service(
        broker,
        f"test-token-{os.getpid()}",
        tmp_path / "service",
        HTTP__TOKEN=token,
        HTTP__CERTIFICATE_FILE=str(tmp_path / "cert.pem"),
    ) as service:
        service.ready()
        url = http_url(service)
        assert url.startswith("https://")
        assert fetch(f"{url}/readyz", tls=tls).json() == {"ready": True, "reason": None}
        for wrong in ({}, {"Authorization": "Bearer marker-token-8c1e09"}, {"Authorization": f"Basic {token}"}):
            refused = fetch(f"{url}/metrics", wrong, tls=tls)
            assert refused.status == 401
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
            assert token not in refused.body
        assert fetch(f"{url}/metrics", {"Authorization": f"Bearer {token}"}, tls=tls).status == 200
        service.stop()
        assert token not in service.logged()


def test_a_port_that_is_taken_ends_the_start_with_a_sentence(broker: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running_service(broker, f"test-port-{os.getpid()}", tmp_path, HTTP__PORT=str(port)) as service:
            assert service.process.wait(timeout=30) == 2
            assert f"can't listen for HTTP on 127.0.0.1 port {port}" in service.logged()


def test_an_invalid_certificate_ends_the_start_with_a_sentence(broker: str, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    changes = {"HTTP__CERTIFICATE_FILE": str(tmp_path / "cert.pem")}
    with running_service(broker, f"test-cert-{os.getpid()}", tmp_path / "service", **changes) as service:
        assert service.process.wait(timeout=30) == 2
        assert "`http.certificate_file`" in service.logged()


# ── systemd ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class ServiceManager:
    """The socket on which systemd would listen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        """All lines received so far."""
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return list(self._lines)
            self._lines += data.decode().splitlines()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    manager = ServiceManager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield manager
    manager.close()


def test_systemd_is_notified_of_the_start_of_pauses_of_a_reload_and_of_the_stop(
    broker: str, tmp_path: Path, manager: ServiceManager
) -> None:
    with running_service(broker, f"test-notify-{os.getpid()}", tmp_path / "service") as service:
        service.ready()
        until(lambda: "STATUS=taking events" in manager.lines(), "systemd was notified that it takes events")
        lines = manager.lines()
        assert lines.count("READY=1") == 1
        service.autotag("pause")
        until(
            lambda: any("STATUS=not taking events: paused by an operator" in line for line in manager.lines()),
            "systemd was notified of the pause",
        )
        assert service.autotag("reload").returncode == 0
        lines = manager.lines()
        assert lines.index("RELOADING=1") < len(lines) - 1 - lines[::-1].index("READY=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in lines)
        assert service.stop() == 0
    assert "STOPPING=1" in manager.lines()


def test_the_watchdog_is_notified_at_half_its_time_and_not_while_the_process_is_stopped(
    broker: str, tmp_path: Path, manager: ServiceManager
) -> None:
    def notifications() -> int:
        return manager.lines().count("WATCHDOG=1")

    with running_service(broker, f"test-watchdog-{os.getpid()}", tmp_path / "service") as service:
        service.ready()
        # Given a watchdog of one second that is notified about twice in it
        before, began_s = notifications(), time.monotonic()
        until(lambda: notifications() - before >= 6, "the watchdog was notified six times")
        assert 2 < time.monotonic() - began_s < 6
        # When the process is stopped
        service.process.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(service.process.pid).status() == psutil.STATUS_STOPPED, "it is stopped")
        before = notifications()
        time.sleep(2)
        # Then no notification arrives
        assert notifications() == before
        # And when the process continues, they arrive again
        service.process.send_signal(signal.SIGCONT)
        until(lambda: notifications() > before, "the watchdog was notified again")
        assert service.stop() == 0


# ── operators ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_line_shows_the_same_as_the_health_checks(service: RunningService) -> None:
    shown = service.autotag("status")
    assert shown.returncode == 0
    assert "taking events" in shown.stdout
    assert "model-1" in shown.stdout
    status = json.loads(service.autotag("status", "--json").stdout)
    assert status["ready"] is True
    assert {child["name"] for child in status["children"]} >= {"model-1", "decoder-1"}
    # A worker that takes no events makes `status` end with 1, for scripts
    service.autotag("pause")
    assert service.autotag("status").returncode == 1
    assert "not taking events: paused" in service.autotag("status").stdout
    service.autotag("resume")


def test_reset_and_reload_report_what_they_did(service: RunningService) -> None:
    assert "forgotten" in service.autotag("reset").stdout
    assert "read again" in service.autotag("reload").stdout
    service.ready()


def test_settings_that_cannot_be_read_do_not_keep_an_operator_from_the_service(service: RunningService) -> None:
    done = service.autotag("--config", "/nowhere/autotag.toml", "status")
    assert done.returncode == 0
    assert "No such file or directory" in done.stderr


def test_without_a_service_the_command_line_reports_that_none_answers(tmp_path: Path) -> None:
    with running_service("amqp://127.0.0.1:1/", "nobody", tmp_path, HTTP__ENABLED="false") as elsewhere:
        elsewhere.process.kill()
        elsewhere.process.wait(timeout=10)
        done = elsewhere.autotag("status")
    assert done.returncode == 3
    assert "no service answers" in done.stderr


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_that_keeps_its_connection_does_not_delay_the_end(broker: str, tmp_path: Path) -> None:
    with running_service(broker, f"test-end-{os.getpid()}", tmp_path) as service:
        service.ready()
        address = http_url(service).removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1]))) as idle:
            idle.sendall(b"GET /livez HTTP/1.1\r\nHost: autotag\r\n\r\n")
            assert b"200 OK" in idle.recv(4096)
            with socket.create_connection((address[0], int(address[1]))) as half:
                half.sendall(b"GET /metrics HTTP/1.1\r\n")
                started_s = time.monotonic()
                assert service.stop() == 0
        assert time.monotonic() - started_s < 10

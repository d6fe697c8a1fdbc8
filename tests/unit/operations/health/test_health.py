"""Health: what ready means, who may read the reason, what systemd receives, and when the loop is late."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import httpx
import pytest
from pydantic import SecretStr

from tests.support.polling import eventually
from worker.amqp.state import BrokerPause, BrokerPhase, BrokerState
from worker.amqp.topology import Lane
from worker.engine import Engine
from worker.http.app import build_app
from worker.http.service_api import ServiceApi
from worker.operations.health.heartbeat import Heartbeat
from worker.operations.health.readiness import has_started, health_of
from worker.operations.health.status import Health, Pause
from worker.operations.health.systemd import Notifier
from worker.operations.metrics import Metrics
from worker.settings import HttpSettings, Settings

CONSUMING = BrokerState(BrokerPhase.CONSUMING, 0.0, wanted=frozenset(Lane), lanes=frozenset(Lane))
HEALTHY = Health(alive=True, loop_lag_s=0.0, started=True, ready=True)
NOT_READY = replace(
    HEALTHY, ready=False, reason="broker_refused", why_not="RabbitMQ at broker.example refuses user autotag"
)


@dataclass
class Model:
    ready: bool = True
    disabled_reason: str | None = None


@dataclass
class FakeEngine:
    model: Model | None = None


def health(state: BrokerState, *, started: bool = True, lag_s: float = 0.0) -> Health:
    return health_of(state, started=started, loop_lag_s=lag_s)


def paused(*reasons: str, phase: BrokerPhase = BrokerPhase.PAUSED, for_s: float = 0.0) -> BrokerState:
    pauses = {reason: BrokerPause(time.monotonic() - for_s, f"because of {reason}") for reason in reasons}
    return BrokerState(phase, 0.0, pauses=pauses, last_error="no route", last_error_reason="unreachable")


def test_a_worker_that_consumes_is_ready() -> None:
    assert health(CONSUMING) == HEALTHY


@pytest.mark.parametrize(
    ("state", "reason", "message"),
    [
        (BrokerState(BrokerPhase.CONNECTING, 0.0), "broker_connecting", "connecting to RabbitMQ"),
        (
            BrokerState(BrokerPhase.WAITING, 0.0, last_error="no route", last_error_reason="unreachable"),
            "unreachable",
            "no route",
        ),
        (paused("broker_blocked"), "broker_blocked", "because of broker_blocked"),
        (paused("broker_blocked", Pause.NOBODY_CAN_TAG), "broker_blocked", "because of nobody_can_tag"),
        (replace(CONSUMING, lanes=frozenset()), "not_consuming", "has not confirmed"),
        (paused(Pause.BY_OPERATOR), "by_operator", "because of by_operator"),
        (paused(Pause.STARTING), "starting", "because of starting"),
        (paused(Pause.BY_OPERATOR, Pause.STOPPING), "stopping", "because of stopping"),
        (paused(Pause.NOBODY_CAN_TAG), "nobody_can_tag", "because of nobody_can_tag"),
        (paused(Pause.NOBODY_CAN_TAG, Pause.BY_OPERATOR), "by_operator", "because of nobody_can_tag"),
        (paused(Pause.STARTING, phase=BrokerPhase.WAITING), "unreachable", "no route"),
        (paused(Pause.BY_OPERATOR, phase=BrokerPhase.WAITING), "by_operator", "because of by_operator"),
        (paused("results_refused", for_s=900_000), "results_refused", "(for 900"),
    ],
)
def test_a_worker_that_is_not_ready_reports_why_and_for_how_long(state: BrokerState, reason: str, message: str) -> None:
    assessed = health(state)
    assert (assessed.ready, assessed.reason) == (False, reason)
    assert message in (assessed.why_not or "")


def test_a_worker_that_consumes_while_its_model_loads_is_not_ready_yet() -> None:
    assert health(CONSUMING, started=False).reason == "starting"


def test_a_loop_that_is_late_by_more_than_ten_seconds_is_not_alive() -> None:
    assert health(CONSUMING, lag_s=9.9).alive
    assert not health(CONSUMING, lag_s=10.0).alive


@pytest.mark.parametrize(
    ("engine", "started"),
    [
        (None, False),
        (FakeEngine(), True),
        (FakeEngine(Model(ready=False)), False),
        (FakeEngine(Model(ready=True)), True),
        (FakeEngine(Model(ready=False, disabled_reason="its file is missing")), True),
    ],
)
def test_a_start_is_complete_when_the_model_is_ready_or_known_to_be_unusable(
    engine: FakeEngine | None, started: bool
) -> None:
    assert has_started(cast("Engine | None", engine)) is started


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Service:
    """The part of the service that health and metrics need."""

    def __init__(self, health: Health) -> None:
        self.settings = Settings()
        self.metrics = Metrics()
        self._health = health

    def health(self) -> Health:
        return self._health


async def get(health: Health, path: str, token: str | None = None, authorization: str = "") -> httpx.Response:
    app = build_app(cast("ServiceApi", Service(health)), HttpSettings(token=SecretStr(token) if token else None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://autotag") as client:
        return await client.get(path, headers={b"Authorization": authorization.encode("latin-1")})


async def test_readiness_is_503_with_the_reason() -> None:
    response = await get(NOT_READY, "/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "reason": NOT_READY.reason, "why_not": NOT_READY.why_not}
    assert response.headers["cache-control"] == "no-store"


async def test_liveness_and_startup_are_independent_of_readiness() -> None:
    assert (await get(NOT_READY, "/livez")).status_code == 200
    assert (await get(NOT_READY, "/startupz")).status_code == 200
    assert (await get(replace(NOT_READY, alive=False), "/livez")).status_code == 503
    assert (await get(replace(NOT_READY, started=False), "/startupz")).status_code == 503


async def test_a_probe_without_the_token_gets_the_reason_code_but_not_the_message() -> None:
    response = await get(NOT_READY, "/readyz", token="secret")
    assert (response.status_code, response.json()) == (503, {"ready": False, "reason": NOT_READY.reason})
    authorized = await get(NOT_READY, "/readyz", token="secret", authorization="Bearer secret")
    assert authorized.json()["why_not"] == NOT_READY.why_not


@pytest.mark.parametrize(
    "authorization", ["", "secret", "Basic secret", "Bearer", "Bearer secre", "Bearer secret2", "Bearer sécret"]
)
async def test_only_the_token_opens_the_metrics(authorization: str) -> None:
    assert (await get(HEALTHY, "/metrics", token="secret", authorization=authorization)).status_code == 401


async def test_the_token_opens_the_metrics_however_its_scheme_is_written() -> None:
    for authorization in ("Bearer secret", "bearer secret", "BEARER  secret"):
        assert (await get(HEALTHY, "/metrics", token="secret", authorization=authorization)).status_code == 200


async def test_an_unknown_path_is_not_found() -> None:
    assert (await get(HEALTHY, "/no-such-page")).status_code == 404


# ── systemd ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_socket_nothing_is_sent_and_nothing_fails() -> None:
    notifier = Notifier.from_environment({})
    notifier.ready()
    notifier.alive(0.0)


def test_a_socket_that_is_gone_or_full_is_ignored(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "gone")).ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "full"))
        notifier = Notifier(str(tmp_path / "full"))
        for _ in range(1000):
            notifier.ready()


def test_a_name_in_the_abstract_namespace_is_understood() -> None:
    name = f"autotag-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(5)
        Notifier(f"@{name}").status("taking\nevents")
        assert manager.recv(100) == b"STATUS=taking events"


def test_the_watchdog_is_notified_at_half_its_time_and_only_by_the_process_it_watches() -> None:
    mine = Notifier.from_environment({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())})
    assert mine.watchdog_interval_s == 15
    assert Notifier.from_environment({"WATCHDOG_USEC": "30000000"}).watchdog_interval_s == 15
    assert Notifier.from_environment({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_interval_s > 1e9
    assert Notifier.from_environment({"WATCHDOG_USEC": "nonsense"}).watchdog_interval_s > 1e9


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_heartbeat_notices_that_the_loop_was_blocked() -> None:
    beats: list[float] = []
    heartbeat = Heartbeat(0.01, beats.append)
    heartbeat.start()
    await eventually(lambda: len(beats) >= 3, "it beats")
    time.sleep(0.3)  # noqa: ASYNC251 - the fault itself
    assert heartbeat.lag_s > 0.2
    await heartbeat.close()


async def test_a_beat_that_raises_does_not_end_the_heartbeat() -> None:
    beats: list[float] = []

    def beat(now_s: float) -> None:
        beats.append(now_s)
        raise RuntimeError("a fault of the callback")

    heartbeat = Heartbeat(0.001, beat)
    heartbeat.start()
    await eventually(lambda: len(beats) >= 3, "it beats")
    await heartbeat.close()

"""The section of connections: what the connector says of itself and what it does not, and that none of it is markup."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.unit.http.test_status_page import HERE, TOKEN, FakeService
from worker.errors import TryLater
from worker.http.app import build_app
from worker.http.page.formatting import ago, number
from worker.operations.health.connector_report import ConnectorReport, ConnectorReports
from worker.settings import HttpSettings, Settings

EVIL = "<script>alert(1)</script>"
CONNECTION = {
    "url": "http://photos.example",
    "inlet": {"enabled": True, "token": "inlet-token-0123456789"},
    "target": {"enabled": True, "add": {"method": "PUT", "path": "/{asset_id}/{tag}"}, "read": {"path": "/{asset_id}"}},
}


def said(*, at_s: float | None = None, **target: Any) -> dict[str, Any]:
    return {
        "at_s": time.time() if at_s is None else at_s,
        "version": "0.1.0",
        "stopped": False,
        "ready": True,
        "why_not": None,
        "waiting": {"photos": 1234},
        "connections": {
            "photos": {"instance": "default", "inlet": True, "target": {"origin": "http://photos.example"} | target}
        },
    }


async def shown(report: dict[str, Any] | None, *, connections: Any = None, signed_in: bool = True) -> str:
    service = FakeService()
    wanted = {"photos": CONNECTION} if connections is None else connections
    service.settings = Settings.model_validate({"connect": wanted})
    service.report = ConnectorReport.model_validate(report) if report is not None else None
    app = build_app(service, HttpSettings(token=SecretStr(TOKEN) if signed_in else None))
    transport = httpx.ASGITransport(app, client=(HERE if signed_in else "192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        headers = {"Authorization": f"Bearer {TOKEN}"} if signed_in else {}
        return (await client.get("/", headers=headers)).text


async def test_what_waits_what_was_written_and_what_people_removed_is_there() -> None:
    totals = {"written": 2500, "gone": 3, "removed_by_people": 1, "later": 7}
    page = await shown(said(totals=totals, last_write_s=time.time() - 120))
    written = f"{number(2500)} written, 3 of assets that are gone, 1 tag removed by people"
    for text in (number(1234), written, ago(120)):
        assert text in page, text


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (lambda: None, "has not been heard of"),
        (lambda: said(at_s=time.time() - 300), "was last heard of"),
        (lambda: said() | {"stopped": True}, "was stopped"),
        (
            lambda: said() | {"ready": False, "why_not": "not connected to RabbitMQ yet"},
            "not connected to RabbitMQ yet",
        ),
        (
            lambda: said(pause={"reason": "unauthorized", "message": "m", "since_s": 1.0}),
            "A connection waits: photos (unauthorized)",
        ),
    ],
)
async def test_whatever_is_wrong_is_in_the_headline_of_a_service_that_is_ready(
    report: Callable[[], Any], text: str
) -> None:
    page = await shown(report())
    assert "Ready, but not connected" in page
    assert text in page.partition('id="timeline"')[0]


async def test_a_clock_that_is_ahead_makes_nothing_late() -> None:
    assert "not connected" not in await shown(said(at_s=time.time() + 900, last_write_s=time.time() + 900))


@pytest.mark.parametrize("connections", [{}, {"photos": CONNECTION | {"enabled": False}}])
async def test_without_a_connection_there_is_no_section(connections: Any) -> None:
    page = await shown(None, connections=connections)
    assert 'id="connections"' not in page
    assert "not connected" not in page


async def test_what_names_an_asset_is_for_those_who_may_see_assets() -> None:
    pause = {"reason": "unauthorized", "message": "PUT /secret-plans.png answered 401", "since_s": time.time()}
    assert "secret-plans" in await shown(said(pause=pause))
    elsewhere = await shown(said(pause=pause), signed_in=False)
    assert "secret-plans" not in elsewhere
    assert "unauthorized" in elsewhere


async def test_text_of_others_is_no_markup() -> None:
    pause = {"reason": EVIL, "message": EVIL, "since_s": 0.0}
    report = said(pause=pause, broker_fault=EVIL) | {"why_not": EVIL}
    report["connections"]["photos"]["poll"] = {"trouble": pause}
    page = await shown(report)
    assert EVIL not in page
    assert "&lt;script&gt;" in page


# ── asking for it ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_many_who_look_at_once_ask_once() -> None:
    asked = 0

    async def read() -> bytes:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return json.dumps(said()).encode()

    reports = ConnectorReports(read)
    assert all(await asyncio.gather(*(reports.last() for _ in range(20))))
    assert asked == 1


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'{"at_s": "soon"}', json.dumps(said()).encode() + b" " * (1 << 20), None]
)
async def test_what_cannot_be_read_is_no_report(body: bytes | None) -> None:
    async def read() -> bytes | None:
        return body

    assert await ConnectorReports(read).last() is None


async def test_a_broker_that_is_away_or_silent_holds_no_page_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.operations.health.connector_report._ANSWERED_WITHIN_S", 0.01)
    silent = asyncio.Event()

    async def never() -> bytes:
        await silent.wait()
        return b""

    async def away() -> bytes:
        raise TryLater("RabbitMQ is away", reason="broker_unreachable")

    for read in (never, away):
        assert await ConnectorReports(read).last() is None

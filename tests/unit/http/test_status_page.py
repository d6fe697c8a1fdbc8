"""Who may see and do what on the status page, and that no text from outside becomes markup."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from worker import __version__
from worker.amqp.delivery import Ending
from worker.amqp.state import BrokerPhase, BrokerState
from worker.engine import Active
from worker.http.app import build_app
from worker.http.json_response import JsonResponse
from worker.http.page.formatting import ago, duration, number, percentage, period
from worker.http.page.markup import Html, h, join
from worker.http.root_path import below
from worker.messages import Result, Tag
from worker.operations.health.connector_report import ConnectorReport
from worker.operations.health.readiness import status_of
from worker.operations.health.status import Health, Status
from worker.operations.history import EndedDelivery, History
from worker.operations.metrics import Metrics
from worker.operations.metrics.cloud import AccountView
from worker.settings import HttpSettings, LoadedSettings, Settings
from worker.settings.in_force import SettingsInForce

HERE, ELSEWHERE = "127.0.0.1", "192.0.2.7"
TOKEN = "a-token-of-the-page"
WITH_TOKEN = HttpSettings(token=SecretStr(TOKEN))
FROM_THE_PAGE = {"Sec-Fetch-Site": "same-origin"}


class FakeService:
    """A service that is ready and idle, and records the actions that it is asked for."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.metrics = Metrics()
        self.history = History(0.0)
        self.active: Active | None = None
        self.done: list[str] = []
        self.report: ConnectorReport | None = None
        self.in_force = SettingsInForce(LoadedSettings(self.settings, {}, None), datetime(2026, 5, 17, tzinfo=UTC))

    def load(self, *, overlay: Mapping[str, Any] | None = None) -> LoadedSettings:
        return LoadedSettings(self.settings, {}, None)

    async def reload(self) -> Status:
        self.done.append("reload")
        return await self.status()

    async def connector(self) -> ConnectorReport | None:
        return self.report

    def accounts(self) -> list[AccountView]:
        return []

    def health(self) -> Health:
        return Health(alive=True, loop_lag_s=0.0, started=True, ready=True)

    async def status(self) -> Status:
        state = BrokerState(BrokerPhase.CONSUMING, 0.0)
        return status_of(state, None, self.health(), in_hand=0, depths={"images.live": 3, "dead-letters": 1})

    async def pause(self) -> Status:
        self.done.append("pause")
        return await self.status()

    async def resume(self) -> Status:
        self.done.append("resume")
        return await self.status()

    async def reset(self) -> Status:
        self.done.append("reset")
        return await self.status()

    def answered(self, **fields: Any) -> None:
        """Record one answered event."""
        result = Result(asset_id="asset-1", instance="default", event_id="e", status="tagged", **fields)
        thumbnail = self.history.results.admit(1.0)
        assert thumbnail is not None
        thumbnail.jpeg = b"\xff\xd8jpeg"
        ended = EndedDelivery(Ending.ANSWERED, "tagged", None, None, "asset-1", "default", None, result, thumbnail, 0.1)
        self.history.on_delivery_ended(ended, 1.0, 0.0)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


Visit = Callable[..., Any]


@pytest.fixture
def visit(service: FakeService) -> Visit:
    @asynccontextmanager
    async def open_client(
        token: str | None = None, address: str = HERE, host: str = "127.0.0.1:9464"
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = build_app(service, HttpSettings(token=SecretStr(token) if token else None))
        transport = httpx.ASGITransport(app, client=(address, 50000))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            yield client

    return open_client


async def sign_in(client: httpx.AsyncClient) -> str:
    """Sign in as a browser does. Returns the CSRF token of the page's forms."""
    answer = await client.post("/sign-in", data={"token": TOKEN}, headers=FROM_THE_PAGE)
    assert answer.status_code == 303
    found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', (await client.get("/")).text)
    assert found
    return found[1]


# ── without a token ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_on_this_machine_everything_can_be_seen_and_nothing_done(visit: Visit, service: FakeService) -> None:
    service.answered()
    async with visit() as client:
        page = (await client.get("/")).text
        assert "asset-1" in page
        assert 'src="thumbnail?n=1"' in page
        assert (await client.get("/thumbnail?n=1")).content == b"\xff\xd8jpeg"
        assert "<form" not in page.partition('id="timeline"')[0]
        for action in ("pause", "resume", "reset"):
            refusal = await client.post(f"/{action}", headers=FROM_THE_PAGE)
            assert refusal.status_code == 403
            assert "http.token" in refusal.text
    assert service.done == []


async def test_from_elsewhere_health_can_be_seen_and_no_asset(visit: Visit, service: FakeService) -> None:
    service.answered()
    async with visit(address=ELSEWHERE) as client:
        for path in ("/", "/live", "/status.json"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert "asset-1" not in answer.text
        assert (await client.get("/thumbnail?n=1")).status_code == 404
        refusal = await client.post("/try", content=b"x", headers=FROM_THE_PAGE | {"X-Autotag-File": "a"})
        assert refusal.status_code == 403


@pytest.mark.parametrize("host", ["localhost:9464", "127.0.0.1:9464", "[::1]:9464", "192.0.2.1", "autotag.localhost"])
async def test_it_answers_under_addresses_and_localhost(visit: Visit, host: str) -> None:
    async with visit(host=host) as client:
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/live", "/status.json", "/thumbnail?n=1", "/page/autotag.js"])
@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:9464", "127.0.0.1.example", "localhost.example"])
async def test_a_name_that_another_site_could_have_pointed_here_is_refused(
    visit: Visit, service: FakeService, host: str, path: str
) -> None:
    service.answered()
    async with visit(host=host) as client:
        answer = await client.get(path)
    assert answer.status_code == 421
    assert "asset-1" not in answer.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("localhost:9464", "10.0.0.7:9464", "[fd00::7]", "autotag:9464", "autotag.svc")),
        *((host, 200) for host in ("autotag.tags.svc.cluster.local.", "worker-1.internal", "")),
        *((host, 421) for host in ("rebound.example", "svc.example:9464", "10.0.0.7.example", "internal.example")),
    ],
)
async def test_metrics_are_scraped_by_names_inside_a_network_and_not_by_those_that_anybody_may_own(
    visit: Visit, host: str, status: int
) -> None:
    async with visit() as client:
        assert (await client.get("/metrics", headers={"Host": host})).status_code == status


async def test_names_that_are_allowed_are_answered(service: FakeService) -> None:
    app = build_app(service, HttpSettings(allowed_hosts=("*.tags.example",)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(HERE, 1)), base_url="http://x") as client:
        for path in ("/", "/metrics"):
            for host, status in (("one.tags.example:9464", 200), ("tags.example", 421), ("onetags.example", 421)):
                assert (await client.get(path, headers={"Host": host})).status_code == status


# ── with one ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_it_there_is_only_the_form(visit: Visit, service: FakeService) -> None:
    service.answered()
    async with visit(TOKEN) as client:
        page = await client.get("/")
        assert 'action="sign-in"' in page.text
        assert "asset-1" not in page.text
        assert (await client.get("/live")).status_code == 401
        assert (await client.get("/status.json")).status_code == 401
        assert (await client.get("/thumbnail?n=1")).status_code == 404
        assert (await client.post("/pause", headers=FROM_THE_PAGE)).status_code == 403
        refusal = await client.post("/try", content=b"x", headers=FROM_THE_PAGE | {"X-Autotag-File": "a"})
        assert refusal.status_code == 403
    assert service.done == []


async def test_signing_in_sets_a_cookie_that_neither_is_the_token_nor_can_be_read_by_scripts(visit: Visit) -> None:
    async with visit(TOKEN) as client:
        answer = await client.post("/sign-in", data={"token": TOKEN}, headers=FROM_THE_PAGE)
        cookie = answer.headers["set-cookie"]
        assert TOKEN not in cookie
        assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in cookie.split(";")}
        assert "What went wrong" in (await client.get("/")).text


@pytest.mark.parametrize(
    ("root_path", "scheme", "expected"),
    [
        ("", "http", ("autotag_", "")),  # no Path: where the page is, below whatever path of a proxy
        ("", "https", ("__Secure-autotag_", "")),
        ("/ops/autotag", "http", ("autotag_", "")),
        ("/ops/autotag", "https", ("__Secure-autotag_", "")),
    ],
)
async def test_the_cookie_is_for_the_page_alone(
    service: FakeService, root_path: str, scheme: str, expected: tuple[str, str]
) -> None:
    transport = httpx.ASGITransport(below(build_app(service, WITH_TOKEN), root_path), client=(HERE, 50000))
    async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://ops.example") as client:
        headers = FROM_THE_PAGE | {"X-Forwarded-Prefix": "/elsewhere", "X-Forwarded-Proto": "ftp"}
        answer = await client.post(f"{root_path}/sign-in", data={"token": TOKEN}, headers=headers)
        name, _, rest = answer.headers["set-cookie"].partition("=")
        assert name.startswith(expected[0])
        assert [part.strip() for part in rest.split(";") if part.strip().startswith("Path")] == [
            *filter(None, expected[1:])
        ]
        assert answer.headers["location"] == "./"
        assert "What went wrong" in (await client.get(f"{root_path}/")).text


async def test_metrics_are_for_the_token_and_for_who_is_signed_in(visit: Visit) -> None:
    async with visit(TOKEN) as client:
        assert (await client.get("/metrics")).status_code == 401
        await sign_in(client)
        answer = await client.get("/metrics")
        assert (answer.status_code, "autotag_build_info" in answer.text) == (200, True)
        client.cookies.clear()
        refused = await client.get("/metrics")
        assert (refused.status_code, "autotag_build_info" in refused.text) == (401, False)


@pytest.mark.parametrize("path", ["/ops/autotag/", "/ops/autotag/sign-in", "/", "/sign-in"])
async def test_no_address_on_the_page_begins_at_the_root_of_the_host(service: FakeService, path: str) -> None:
    transport = httpx.ASGITransport(below(build_app(service, WITH_TOKEN), "/ops/autotag"), client=(HERE, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://ops.example") as client:
        headers = FROM_THE_PAGE | {"Authorization": f"Bearer {TOKEN}"}
        answer = await (client.post if "sign-in" in path else client.get)(path, headers=headers)
        found = re.findall(r'(?:href|src|action)="([^"]*)"', answer.text)
        assert "page/autotag.css" in found
        assert [each for each in found if each.startswith("/") or ":" in each] == []
        script = (await client.get("/page/autotag.js")).text
        assert re.findall(r"""fetch\(["'`]/""", script) == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ops/autotag", 308),
        ("/ops/autotag/livez", 200),
        ("/livez", 200),
        ("/ops/autotag/metrics", 401),
        ("/ops/autotagger/livez", 401),
        ("/ops/autotag//livez", 401),
        ("/ops/autotag/ops/autotag/livez", 401),
    ],
)
async def test_the_path_of_the_proxy_opens_nothing_that_was_closed(
    service: FakeService, path: str, status: int
) -> None:
    transport = httpx.ASGITransport(below(build_app(service, WITH_TOKEN), "/ops/autotag"), client=(HERE, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://ops.example") as client:
        assert (await client.get(path)).status_code == status


async def test_a_wrong_token_is_refused_and_costs_a_moment(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.http.sessions._WRONG_TOKEN_DELAY_S", 0.01)
    async with visit(TOKEN) as client:
        answer = await client.post("/sign-in", data={"token": "another"}, headers=FROM_THE_PAGE)
    assert answer.status_code == 403
    assert "not the token" in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_signed_in_browser_may_act_from_the_page(visit: Visit, service: FakeService) -> None:
    async with visit(TOKEN) as client:
        csrf_token = await sign_in(client)
        for action in ("pause", "resume", "reset"):
            answer = await client.post(f"/{action}", data={"csrf_token": csrf_token}, headers=FROM_THE_PAGE)
            assert answer.status_code == 303
    assert service.done == ["pause", "resume", "reset"]


CROSS_SITE: dict[str, dict[str, str]] = {
    "another site, according to the browser": {"Sec-Fetch-Site": "cross-site"},
    "another port of this host, which shares our cookies": {"Sec-Fetch-Site": "same-site"},
    "another origin, from an older browser": {"Origin": "http://evil.example"},
    "another port, from an older browser": {"Origin": "http://127.0.0.1:3000"},
    "a sandboxed frame": {"Origin": "null"},
    "an unknown origin": {},
}


@pytest.mark.parametrize("headers", CROSS_SITE.values(), ids=CROSS_SITE.keys())
async def test_a_request_from_elsewhere_does_nothing_even_with_cookie_and_csrf_token(
    visit: Visit, service: FakeService, headers: dict[str, str]
) -> None:
    async with visit(TOKEN) as client:
        csrf_token = await sign_in(client)
        for path in ("/pause", "/sign-out"):
            answer = await client.post(path, data={"csrf_token": csrf_token}, headers=headers)
            assert answer.status_code == 403
        tried = await client.post("/try", content=b"x", headers=headers | {"X-Autotag-File": "a"})
        assert tried.status_code == 403
        assert 'action="sign-in"' not in (await client.get("/")).text
    assert service.done == []


async def test_an_older_browser_is_identified_by_its_origin(visit: Visit, service: FakeService) -> None:
    async with visit(TOKEN) as client:
        csrf_token = await sign_in(client)
        headers = {"Origin": "http://127.0.0.1:9464", "X-Autotag-CSRF": csrf_token}
        assert (await client.post("/pause", headers=headers)).status_code == 303
    assert service.done == ["pause"]


@pytest.mark.parametrize("csrf_token", ["", "0" * 64, "ä"])
async def test_without_the_pages_csrf_token_nothing_is_done(
    visit: Visit, service: FakeService, csrf_token: str
) -> None:
    async with visit(TOKEN) as client:
        await sign_in(client)
        answer = await client.post("/pause", data={"csrf_token": csrf_token}, headers=FROM_THE_PAGE)
    assert answer.status_code == 403
    assert service.done == []


async def test_a_program_acts_with_the_bearer_token_alone(visit: Visit, service: FakeService) -> None:
    async with visit(TOKEN) as client:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        answer = await client.post("/pause", headers=bearer | {"Accept": "application/json"})
        assert answer.json() == {"said": "Paused: no more events are taken"}
        assert (await client.get("/status.json", headers=bearer)).json()["version"] == __version__
        assert (await client.post("/pause", headers={"Authorization": "Bearer wrong"})).status_code == 403
    assert service.done == ["pause"]


async def test_a_get_request_does_nothing(visit: Visit, service: FakeService) -> None:
    async with visit(TOKEN) as client:
        await sign_in(client)
        for action in ("pause", "resume", "reset", "sign-out", "try"):
            assert (await client.get(f"/{action}")).status_code == 405
    assert service.done == []


async def test_a_session_that_was_signed_out_stays_invalid(visit: Visit) -> None:
    async with visit(TOKEN) as client:
        csrf_token = await sign_in(client)
        cookies = dict(client.cookies)
        assert (
            await client.post("/sign-out", data={"csrf_token": csrf_token}, headers=FROM_THE_PAGE)
        ).status_code == 303
        client.cookies.clear()
        client.cookies.update(cookies)
        assert 'action="sign-in"' in (await client.get("/")).text


async def test_sessions_are_few_and_end(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    async with visit(TOKEN) as client:
        await sign_in(client)
        first = dict(client.cookies)
        for _ in range(32):
            await client.post("/sign-in", data={"token": TOKEN}, headers=FROM_THE_PAGE)
        assert 'action="sign-in"' not in (await client.get("/")).text
        monkeypatch.setattr("worker.http.sessions.time.monotonic", lambda: 1e12)
        assert 'action="sign-in"' in (await client.get("/")).text
        monkeypatch.undo()
        client.cookies.clear()
        client.cookies.update(first)
        assert 'action="sign-in"' in (await client.get("/")).text


# ── what every answer carries, and trying an image ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/live", "/status.json", "/thumbnail?n=0", "/page/autotag.css"])
async def test_every_answer_carries_the_security_headers(visit: Visit, path: str) -> None:
    async with visit() as client:
        headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


async def test_nothing_from_outside_becomes_markup(visit: Visit, service: FakeService) -> None:
    nasty = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    service.answered(message=nasty, tags=(Tag(name=nasty, confidence=0.9, provider="tensorflow"),))
    failed = EndedDelivery(Ending.DEAD_LETTERED, "failed", nasty, nasty, nasty, nasty, None, None, None, 0.1)
    service.history.on_delivery_ended(failed, 1.0, 0.0)
    async with visit() as client:
        page = (await client.get("/")).text
    assert "alert(1)" in page
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert page.count("<script") == 1
    assert " style=" not in page


async def test_a_service_that_is_starting_reports_that_to_a_client_that_tries_an_image(visit: Visit) -> None:
    headers = FROM_THE_PAGE | {"X-Autotag-File": "a.jpg"}
    async with visit() as client:
        answer = await client.post("/try", content=b"x", headers=headers)
        assert answer.status_code == 503
        assert "still starting" in answer.json()["error"]
        empty = await client.post("/try", content=b"", headers=headers)
        assert (empty.status_code, empty.json()) == (422, {"error": "It is empty"})


async def test_an_image_that_is_too_large_is_not_read_to_its_end(visit: Visit, service: FakeService) -> None:
    small = service.settings.sources.model_copy(update={"inline_maximum_bytes": 100_000})
    service.settings = service.settings.model_copy(update={"sources": small})
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 50_000
            yield b"x" * 50_000

    headers = FROM_THE_PAGE | {"X-Autotag-File": "a.jpg"}
    async with visit() as client:
        answer = await client.post("/try", content=endless(), headers=headers)
        assert answer.status_code == 413
        assert "100 kB" in answer.json()["error"]
        announced = await client.post("/try", content=b"x" * 100_001, headers=headers)
        assert announced.status_code == 413
    assert sent <= 200_000


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_put_into_an_element_is_escaped_unless_it_is_one() -> None:
    assert h("p", "a < b", h("b", "!"), class_="note") == '<p class="note">a &lt; b<b>!</b></p>'
    assert h("a", "x", href='"&<', hidden=True, title=None) == '<a href="&quot;&amp;&lt;" hidden>x</a>'
    assert join("<", Html("<"), None, 3, ["&"]) == "&lt;<3&amp;"


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        (duration(0.0004), "1 ms"),
        (duration(0.0421), "42 ms"),
        (duration(1.26), "1.3 s"),
        (duration(67.0), "1 min 7 s"),
        (period(3 * 3600 + 12 * 60 + 5), "3 h 12 min"),
        (period(8 * 86400 + 3 * 3600), "8 d 3 h"),
        (ago(0.5), "just now"),
        (ago(59.4), "59 s ago"),
        (ago(185.0), "3 min ago"),
        (ago(7300.0), "2 h 1 min ago"),
        (number(12480), "12\u202f480"),
        (percentage(0.934), "93 %"),
        (percentage(0.0071), "0.7 %"),
        (percentage(1.0), "100 %"),
    ],
)
def test_numbers_are_formatted_for_people(formatted: str, expected: str) -> None:
    assert formatted == expected


def test_text_from_outside_hides_nothing_and_does_not_reorder_the_page() -> None:
    assert h("b", "photo\u202egpj.exe\x9b") == r"<b>photo\u202egpj.exe\x9b</b>"
    assert h("b", "<תל אביב>") == "<b>&lt;תל אביב&gt;</b>"


def test_json_answers_escape_what_a_terminal_would_obey() -> None:
    value = {"asset_id": "é\x1b\x9b\u202e\ud800"}
    body = bytes(JsonResponse(value).body)
    assert body == r'{"asset_id":"é\u001b\u009b\u202e\ud800"}'.encode()
    assert json.loads(body) == value


JUNK = (
    b"[::",
    b"[",
    b"]",
    b"//[x",
    b"\xff\xfe",
    b"a" * 5000,
    b"%",
    b"%zz",
    b";=;",
    b"=\t=",
    b"[::1]]:99999",
    b"x:y:z",
    b"@",
)


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(
    "name", ["host", "origin", "authorization", "cookie", "sec-fetch-site", "x-autotag-csrf", "range"]
)
async def test_junk_in_a_header_is_refused_or_ignored_and_never_a_fault(
    visit: Visit, name: str, token: str | None
) -> None:
    async with visit(token) as client:
        for junk in JUNK:
            headers = {name.encode(): b"Bearer " + junk if name == "authorization" else junk}
            for method, path in (("GET", "/"), ("GET", "/status.json"), ("POST", "/pause"), ("POST", "/sign-in")):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code < 500, (junk, method, path)


async def test_guessing_tokens_locks_no_operator_out(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    async def wait_for_ever(_seconds: float) -> None:
        await never.wait()

    async with visit(TOKEN) as client:
        monkeypatch.setattr(asyncio, "sleep", wait_for_ever)
        guesses = [
            asyncio.create_task(client.post("/sign-in", data={"token": f"guess {number}"}, headers=FROM_THE_PAGE))
            for number in range(30)
        ]
        await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
        # As many as may wait do, further wrong ones are refused at once, and the right one is let in
        refused = [each for each in guesses if each.done()]
        assert refused
        assert len(refused) < len(guesses)
        answer = await client.post("/sign-in", data={"token": TOKEN}, headers=FROM_THE_PAGE)
        assert answer.status_code == 303
        never.set()
        await asyncio.gather(*guesses)


async def test_refused_actions_do_not_fill_the_log(visit: Visit) -> None:
    async with visit(TOKEN, address=ELSEWHERE) as client:
        with capture_logs() as lines:
            for _ in range(50):
                assert (await client.post("/pause")).status_code == 403
    assert len([line for line in lines if line["event"] == "an action was refused"]) <= 1

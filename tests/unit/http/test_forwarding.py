"""What a request's headers say about where it comes from is believed of trusted proxies, and of nobody else."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from structlog.testing import capture_logs

from tests.unit.http.test_status_page import FakeService
from worker.http.app import build_app
from worker.http.forwarding import ForwardingMiddleware, forwarding_of
from worker.http.root_path import hint
from worker.settings import HttpSettings

PROXY, SECOND_PROXY, ELSEWHERE = "10.42.0.1", "10.42.0.2", "192.0.2.7"
FROM_THE_PAGE = {"Sec-Fetch-Site": "same-origin"}
SSO = {"user_header": "X-Forwarded-User", "operators": ["alice"]}
OF_A_PERSON = {"X-Forwarded-User": "alice", "X-Forwarded-For": ELSEWHERE}


async def seen(headers: dict[str, str] | list[tuple[str, str]], *, peer: str = PROXY, **http: Any) -> dict[str, Any]:
    """What the application learns of a request with these headers that comes from `peer`."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        forwarding = forwarding_of(request)
        known = {
            "client": request.client.host if request.client else None,
            "scheme": request.url.scheme,
            "host": request.headers.get("host"),
            "sign": forwarding.sign,
            "person": forwarding.person,
        }
        await JSONResponse(known)(scope, receive, send)

    settings = HttpSettings.model_validate({"trusted_proxies": ["10.42.0.0/16", "::1"], "sso": SSO} | http)
    transport = httpx.ASGITransport(ForwardingMiddleware(answer, settings), client=(peer, 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://inside:9464") as client:
        found: dict[str, Any] = (await client.get("/", headers=headers)).json()
        return found


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (ELSEWHERE, ELSEWHERE),
        (f"127.0.0.1, {ELSEWHERE}", ELSEWHERE),  # what the client wrote stands before what the proxy knows
        (f"{ELSEWHERE}, {SECOND_PROXY}", ELSEWHERE),
        (f"6.6.6.6, {ELSEWHERE}:4711, {SECOND_PROXY}", ELSEWHERE),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("unknown", PROXY),
        ("_hidden, <script>", PROXY),
        ("", PROXY),
        ("," * 5000, PROXY),
    ],
)
async def test_the_client_is_the_last_one_that_a_trusted_proxy_has_seen(chain: str, client: str) -> None:
    assert (await seen({"X-Forwarded-For": chain}))["client"] == client


async def test_scheme_and_host_are_those_that_the_browser_asked_for() -> None:
    found = await seen({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "dms.example, inner.example"})
    assert (found["scheme"], found["host"]) == ("https", "dms.example")


@pytest.mark.parametrize("peer", [ELSEWHERE, "127.0.0.1", "10.43.0.1", "::2", ""])
async def test_nothing_is_believed_of_others(peer: str) -> None:
    headers = OF_A_PERSON | {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "dms.example"}
    found = await seen(headers, peer=peer)
    assert (found["scheme"], found["host"], found["person"]) == ("http", "inside:9464", None)
    assert found["client"] == peer
    assert found["sign"] is not None


async def test_an_ipv4_proxy_is_known_on_a_socket_for_both_families_too() -> None:
    assert (await seen(OF_A_PERSON, peer=f"::ffff:{PROXY}"))["person"] == "alice"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        [("X-Forwarded-User", "alice"), ("X-Forwarded-User", "bob")],
        {"X-Forwarded-User": ""},
        {"X-Forwarded-User": "  "},
        {"X-Forwarded-User": "a" * 201},
        [("X-Forwarded-User", b"ali\x85ce")],
        [("X-Forwarded-User", "ali\u202ece".encode())],
        {"X_Forwarded_User": "alice"},
        {"X-Forwarded-User-Name": "alice"},
    ],
)
async def test_two_names_or_none_that_can_be_shown_are_nobody(headers: Any) -> None:
    assert (await seen(headers))["person"] is None


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For", "x-forwarded-anything", "Forwarded", "Via", "X-Real-IP", "CF-Connecting-IP", "X-Client-IP"],
)
async def test_any_header_of_a_proxy_is_a_sign_of_one(header: str) -> None:
    assert header.lower() in str((await seen({header: ""}, peer="127.0.0.1"))["sign"]).lower()


async def test_a_request_of_a_browser_has_no_sign() -> None:
    assert (await seen({"User-Agent": "x", "Referer": "http://x", "Accept": "*/*"}, peer=ELSEWHERE))["sign"] is None


async def test_a_proxy_that_is_not_trusted_is_logged_once_however_often_it_asks() -> None:
    http = HttpSettings(token=SecretStr("a-token-of-the-page"))
    transport = httpx.ASGITransport(build_app(FakeService(), http), client=(ELSEWHERE, 1))
    with capture_logs() as logs:
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for _ in range(3):
                await client.get("/", headers={"X-Forwarded-For": "127.0.0.1"})
    assert [each["address"] for each in logs if "trusted_proxies" in each["event"]] == [ELSEWHERE]


# ── signing in by a proxy, without a token ───────────────────────────────────────────────────────────────────────────


def page_from(service: FakeService, peer: str, *, host: str = "inside:9464", **http: Any) -> httpx.AsyncClient:
    settings = HttpSettings.model_validate({"trusted_proxies": [PROXY], "sso": SSO} | http)
    transport = httpx.ASGITransport(build_app(service, settings), client=(peer, 50000))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


async def test_an_operator_sees_assets_and_acts_with_the_token_of_the_form() -> None:
    service = FakeService()
    service.answered()
    async with page_from(service, PROXY) as client:
        page = (await client.get("/", headers=OF_A_PERSON)).text
        assert "asset-1" in page
        found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', page)
        assert found
        for person, status in (("bob", 403), ("alice", 303)):
            headers = OF_A_PERSON | FROM_THE_PAGE | {"X-Forwarded-User": person}
            answer = await client.post("/pause", data={"csrf_token": found[1]}, headers=headers)
            assert answer.status_code == status
        foreign = await client.post("/pause", data={"csrf_token": found[1]}, headers=OF_A_PERSON)
        assert foreign.status_code == 403
    assert service.done == ["pause"]


async def test_metrics_are_shown_to_whom_the_proxy_has_signed_in_beside_a_token() -> None:
    async with page_from(FakeService(), PROXY, token="a-token-of-the-page") as client:
        assert (await client.get("/metrics", headers=OF_A_PERSON)).status_code == 200
        assert (await client.get("/metrics")).status_code == 401


async def test_star_stands_for_everyone_whom_the_proxy_lets_in() -> None:
    async with page_from(FakeService(), PROXY, sso=SSO | {"operators": ["*"]}) as client:
        assert "<button" in (await client.get("/", headers=OF_A_PERSON | {"X-Forwarded-User": "carol"})).text


@pytest.mark.parametrize(
    ("peer", "headers", "why"),
    [
        (PROXY, {"X-Forwarded-For": ELSEWHERE}, "has not said who you are"),
        (PROXY, {}, "has not said who you are"),
        (ELSEWHERE, {}, "ask by way of it"),
        (ELSEWHERE, OF_A_PERSON, "not in http.trusted_proxies"),
        ("127.0.0.1", OF_A_PERSON, "not in http.trusted_proxies"),
    ],
)
async def test_those_whom_the_proxy_has_not_signed_in_are_refused_with_the_reason(
    peer: str, headers: dict[str, str], why: str
) -> None:
    service = FakeService()
    service.answered()
    async with page_from(service, peer) as client:
        for path in ("/", "/live", "/results", "/thumbnail?n=1", "/status.json"):
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, "asset-1" in answer.text) == (403, False)
            assert why in answer.text
        assert (await client.get("/livez", headers=headers)).status_code == 200


async def test_a_proxy_on_this_machine_that_says_nothing_is_no_one_on_this_machine() -> None:
    for sso, why in ((SSO, "has not said who you are"), ({}, "Set http.token")):
        service = FakeService()
        service.answered()
        async with page_from(
            service, "127.0.0.1", host="localhost:9464", trusted_proxies=["::1", "127.0.0.1"], sso=sso
        ) as client:
            answer = await client.get("/")
            assert (answer.status_code, "asset-1" in answer.text, why in answer.text) == (403, False, True)


async def test_on_the_machine_itself_assets_are_seen_and_nothing_done() -> None:
    service = FakeService()
    service.answered()
    async with page_from(service, "127.0.0.1", host="localhost:9464") as client:
        page = (await client.get("/")).text
        assert "asset-1" in page
        assert "<button" not in page


async def test_markup_in_a_name_is_shown_as_it_is_written() -> None:
    async with page_from(FakeService(), PROXY) as client:
        page = (await client.get("/", headers=OF_A_PERSON | {"X-Forwarded-User": "<b onclick=x>&"})).text
    assert "<b onclick" not in page
    assert "&lt;b onclick=x&gt;&amp;" in page


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sso": {"user_header": "X-User"}}, "set trusted_proxies"),
        ({"trusted_proxies": ["proxy.example"]}, "such as 127.0.0.1"),
        ({"trusted_proxies": ["*"]}, "such as 127.0.0.1"),
        ({"trusted_proxies": ["10.42.0.1/16"]}, "has host bits set"),
        ({"trusted_proxies": ["::1"], "sso": {"user_header": "Cookie"}}, "browsers set this header themselves"),
        ({"trusted_proxies": ["::1"], "sso": {"user_header": "X User"}}, "pattern"),
        ({"sso": {"sign_out_url": "javascript:alert(1)"}}, "pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        HttpSettings.model_validate(settings)


# ── a path that nobody removes ───────────────────────────────────────────────────────────────────────────────────────

KNOWN = ("/", "/live", "/sign-in", "/page/autotag.css")


@pytest.mark.parametrize(
    ("path", "prefix"),
    [("/autotag/", "/autotag"), ("/a/b/live", "/a/b"), ("/x/page/autotag.css", "/x"), ("/autotag//live", "/autotag")],
)
def test_what_a_proxy_has_not_removed_is_named(path: str, prefix: str) -> None:
    assert f'http.root_path = "{prefix}"' in hint(path, KNOWN)


@pytest.mark.parametrize("path", ["/", "/live", "/favicon.ico", "/nothing", "//", "//live"])
def test_other_addresses_have_no_hint(path: str) -> None:
    assert hint(path, KNOWN) == ""

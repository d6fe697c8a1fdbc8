"""A real service behind a real nginx with TLS, below a path: signing in, acting, and whose headers are believed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.integration.test_settings_changes import least
from tests.integration.test_status_page import TOKEN, drop, sign_in, violations, wait_for_script
from tests.support.browser import BrowserMessages, chromium
from tests.support.monitoring import http_url
from tests.support.nginx import nginx
from tests.support.service import Dms, RunningService, running_service

THRESHOLD = "tensorflow.confidence_threshold"
PHONE = {"width": 360, "height": 740}
PASSED_ON = "/ops/autotag"
PROXY = "127.0.0.9"
"""The address that nginx asks from: clients that come without it have 127.0.0.1."""

FORWARDS = """
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
"""


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-nginx-{os.getpid()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nginx")


@pytest.fixture(scope="module")
def service(broker: str, prefix: str, photographs: dict[str, Path], folder: Path) -> Iterator[RunningService]:
    file = folder / "autotag.toml"
    file.write_text(
        f"[http]\ntoken = '{TOKEN}'\neditor = true\nroot_path = '{PASSED_ON}'\ntrusted_proxies = ['{PROXY}']\n"
        "[http.sso]\nuser_header = 'X-Forwarded-User'\noperators = ['alice']\nsign_out_url = '/oauth2/sign_out'\n"
        "[instances.acme.tensorflow]\ntags = 'labels'\nconfidence_threshold = 0.02\n"
    )
    roots = json.dumps([str(photographs["chelsea"].parent)])
    with running_service(broker, prefix, folder / "run", CONFIG=str(file), SOURCES__PATH_ROOTS=roots) as service:
        yield service.ready(within_s=120)
        assert service.stop() == 0


@pytest.fixture(scope="module")
def dms(broker: str, prefix: str, service: RunningService) -> Iterator[Dms]:
    dms = Dms(broker, prefix)
    yield dms
    dms.close()


@pytest.fixture(scope="module")
def direct(service: RunningService) -> str:
    return http_url(service)


@pytest.fixture(scope="module")
def proxied(direct: str, folder: Path) -> Iterator[str]:
    (folder / "people").write_text("".join(f"{name}:{{PLAIN}}{name}-password\n" for name in ("alice", "bob", "Zoë")))
    people = f'auth_basic "people"; auth_basic_user_file {folder}/people;'
    asks = f"proxy_bind {PROXY}; proxy_pass {direct}"
    locations = {
        "/stripped/": f"{asks}/; {FORWARDS}",
        PASSED_ON: f"{asks}; {FORWARDS}",
        # nginx as it comes: HTTP/1.0, the address as Host, and no header of its own
        "/bare/": f"{asks}/;",
        # known by another name inside, as Apache does it
        "/renamed/": f"{asks}/; proxy_set_header X-Forwarded-Host $http_host;",
        "/sso/": f"{people} {asks}/; {FORWARDS} proxy_set_header X-Forwarded-User $remote_user;",
        "/forgotten/": f"{asks}; {FORWARDS}",
    }
    with nginx(folder, locations) as url:
        yield url


@pytest.fixture(scope="module")
def browser(service: RunningService) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[tuple[BrowserContext, Page]]:
    context = browser.new_context(ignore_https_errors=True, **options)
    try:
        yield context, context.new_page()
    finally:
        context.close()


def edit_threshold(page: Page, value: str) -> None:
    page.get_by_role("link", name="Settings").first.click()
    page.goto(f"{page.url.rpartition('/')[0]}/settings-edit?instance=acme")
    page.locator(f"[name='instances.acme.{THRESHOLD}']").fill(value)
    page.get_by_role("button", name="Save").click()


@pytest.mark.parametrize("path", ["/stripped/", f"{PASSED_ON}/", "/bare/", "/renamed/"])
def test_behind_nginx_with_tls_one_signs_in_looks_and_acts_with_a_secure_cookie(
    browser: Browser, proxied: str, photographs: dict[str, Path], path: str
) -> None:
    with visiting(browser) as (context, page):
        messages = BrowserMessages(page)
        page.goto(f"{proxied}{path}")
        sign_in(page)
        wait_for_script(page)
        (cookie,) = context.cookies()
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
        assert cookie["name"].startswith("__Secure-autotag_")
        assert cookie["path"].rstrip("/") == path.rstrip("/")
        drop(page, "chelsea.png", photographs["chelsea"].read_bytes(), "image/png")
        expect(page.locator("#tried")).to_contain_text("cat")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
        for tab in ("Results", "Dead letters", "Tenants", "Settings", "Overview"):
            page.get_by_role("link", name=tab, exact=True).click()
            expect(page.get_by_role("link", name=tab, exact=True)).to_have_attribute("aria-current", "page")
            assert page.url.startswith(f"{proxied}{path}")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        assert context.cookies() == []
        assert messages.texts == []


def test_a_threshold_changed_behind_nginx_is_obeyed_by_the_next_event_and_undone(
    browser: Browser, proxied: str, dms: Dms, photographs: dict[str, Path]
) -> None:
    photograph = photographs["chelsea"]
    assert 0.02 <= least(dms, photograph) < 0.2
    with visiting(browser, viewport=PHONE, color_scheme="dark") as (_, page):
        page.goto(f"{proxied}/stripped/")
        sign_in(page)
        edit_threshold(page, "0.2")
        expect(page.get_by_role("status")).to_contain_text("in force")
        assert least(dms, photograph) >= 0.2
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        page.get_by_role("button", name="Undo").first.click()
        expect(page.get_by_role("status")).to_contain_text("in force")
        assert 0.02 <= least(dms, photograph) < 0.2


def test_someone_whom_the_proxy_has_signed_in_acts_by_their_own_name(
    browser: Browser, proxied: str, service: RunningService
) -> None:
    alice = {"username": "alice", "password": "alice-password"}
    with visiting(browser, http_credentials=alice) as (context, page):
        page.goto(f"{proxied}/sso/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
        expect(page.locator("header")).to_contain_text("alice")
        expect(page.get_by_role("link", name="Sign out")).to_have_attribute("href", "/oauth2/sign_out")
        assert context.cookies() == []
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
        edit_threshold(page, "0.3")
        expect(page.get_by_role("status")).to_contain_text("in force")
        assert violations(page) == []
    history = service.autotag("config", "history").stdout
    assert "alice, 127.0.0.1" in history
    assert service.autotag("config", "undo").returncode == 0


def test_someone_who_is_no_operator_looks_and_does_nothing(browser: Browser, proxied: str) -> None:
    bob = {"username": "bob", "password": "bob-password"}
    with visiting(browser, http_credentials=bob) as (_, page):
        page.goto(f"{proxied}/sso/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)
        expect(page.locator("main")).to_contain_text("bob may look only")
        page.goto(f"{proxied}/sso/settings-edit?instance=acme")
        expect(page.get_by_role("button", name="Save")).to_have_count(0)
    with client("bob") as session:
        for path in ("pause", "resume", "settings-edit", "purge-dead-letters"):
            answer = session.post(f"{proxied}/sso/{path}", headers={"Sec-Fetch-Site": "same-origin"})
            assert answer.status_code == 403, path
            assert "bob may look only" in answer.text


def client(person: str) -> httpx.Client:
    return httpx.Client(verify=False, auth=(person, f"{person}-password"))  # noqa: S501 - made for this test


def test_another_site_cannot_act_with_what_the_proxy_knows(proxied: str) -> None:
    with client("alice") as session:
        for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
            answer = session.post(f"{proxied}/sso/pause", headers=headers)
            assert (answer.status_code, "did not come from this page" in answer.text) == (403, True)
        answer = session.post(f"{proxied}/sso/pause", headers={"Sec-Fetch-Site": "same-origin"})
        assert (answer.status_code, "out of date" in answer.text) == (403, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-User": "alice"},
        {"X-Forwarded-User": "alice", "X-Forwarded-For": PROXY},
        {"X-Forwarded-User": "alice", "Forwarded": f"for={PROXY}", "X-Real-IP": PROXY},
    ],
)
def test_a_client_that_does_not_come_from_the_proxy_is_not_believed(direct: str, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{direct}/", headers=headers)
    assert 'action="sign-in"' in answer.text
    assert "alice" not in answer.text
    assert httpx.get(f"{direct}/settings.json", headers=headers).status_code == 401


def test_a_name_that_the_client_writes_itself_is_replaced_or_taken_for_none(proxied: str) -> None:
    with client("bob") as session:
        page = session.get(f"{proxied}/sso/", headers={"X-Forwarded-User": "alice"}).text
        assert "bob may look only" in page
    with client("Zoë") as session:
        assert "Zoë may look only" in session.get(f"{proxied}/sso/").text


def test_a_path_that_nobody_removes_is_named(proxied: str) -> None:
    answer = httpx.get(f"{proxied}/forgotten/", verify=False)  # noqa: S501 - made for this test
    assert answer.status_code == 401
    assert 'http.root_path = "/forgotten"' in answer.text

"""The tabs of a real service's page in a real Chromium: results, dead letters, a thousand tenants, a service killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.integration.test_status_page import TOKEN, sign_in, violations
from tests.support.browser import BrowserMessages, chromium
from tests.support.monitoring import http_url
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service

DESKTOP = {"width": 1120, "height": 800}
PHONE = {"width": 360, "height": 740}
KEY_MISSING = "tenant-0500"


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-tabs-{os.getpid()}"


def settings(folder: Path, photographs: dict[str, Path]) -> dict[str, str]:
    """A thousand tenants; one of them has no key for the service that it has switched on, one is switched off."""
    tables = [f"[instances.tenant-{number:04d}]" for number in range(1000)]
    tables += [f"[instances.{KEY_MISSING}.google_cloud_vision]\nenabled = true"]
    tables[7] += "\nenabled = false"
    file = folder / "tenants.toml"
    file.write_text("\n".join(tables))
    return {
        "CONFIG": str(file),
        "HTTP__TOKEN": TOKEN,
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["chelsea"].parent), str(folder)]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tabs")


@pytest.fixture(scope="module")
def service(broker: str, prefix: str, photographs: dict[str, Path], folder: Path) -> Iterator[RunningService]:
    with running_service(broker, prefix, folder / "run", **settings(folder, photographs)) as service:
        yield service.ready(within_s=120)
        assert service.stop() == 0


@pytest.fixture(scope="module")
def url(service: RunningService) -> str:
    return http_url(service)


@pytest.fixture(scope="module")
def dms(broker: str, prefix: str, service: RunningService) -> Iterator[Dms]:
    dms = Dms(broker, prefix)
    yield dms
    dms.close()


@pytest.fixture(scope="module")
def answered(dms: Dms, service: RunningService, photographs: dict[str, Path], folder: Path) -> None:
    """Each photograph is tagged for a tenant; three files could not be: two of them were no images yet. All is kept."""
    events = [
        dms.publish({"path": str(file)}, asset_id=f"photos/{name}", instance="tenant-0042")
        for name, file in photographs.items()
    ]
    for name in ("late-1.jpg", "late-2.jpg"):
        (folder / name).write_bytes(b"not an image yet")
        events.append(dms.publish({"path": name}, asset_id=f"inbox/{name}", instance="tenant-0001"))
    (folder / "cut.jpg").write_bytes(photographs["chelsea"].read_bytes()[:9000])
    events.append(dms.publish({"path": "cut.jpg"}, asset_id="inbox/cut.jpg"))
    dms.results_of(events)
    until(lambda: dms.depth("dead-letters") == 3, "three are dead letters")
    until(lambda: len(service.autotag("results", "--json").stdout.splitlines()) == len(events), "the history has all")


@pytest.fixture(scope="module")
def browser(service: RunningService, answered: None) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


OpenTab = Callable[..., Page]


@pytest.fixture
def open_tab(browser: Browser, url: str) -> Iterator[OpenTab]:
    contexts: list[BrowserContext] = []

    def open_in_new_context(path: str, **options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.goto(url)
        sign_in_whatever_the_state(page)
        page.goto(f"{url}/{path}")
        return page

    yield open_in_new_context
    for context in contexts:
        context.close()


def sign_in_whatever_the_state(page: Page) -> None:
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#headline")).to_be_visible()


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_asset_is_found_by_a_part_of_its_id_and_shows_what_each_provider_said(open_tab: OpenTab) -> None:
    page = open_tab("results")
    page.get_by_label("Asset").fill("chels")
    page.get_by_role("button", name="Show", exact=True).click()
    (item,) = page.locator(".kept > li").all()
    expect(item).to_contain_text("photos/chelsea")
    expect(item).to_contain_text("tenant-0042")
    item.get_by_text("What each provider said").click()
    expect(item.locator(".said")).to_contain_text("tensorflow")
    expect(item.locator(".said")).to_contain_text("cat")


def test_results_are_found_by_status_instance_and_tag(open_tab: OpenTab, service: RunningService) -> None:
    page = open_tab("results?status=failed")
    expect(page.locator(".kept > li")).to_have_count(3)
    page.get_by_label("Instance").fill("tenant-0001")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator(".kept > li")).to_have_count(2)
    page.goto(page.url.partition("?")[0] + "?tag=CAT")
    expect(page.locator(".kept > li")).to_have_count(1)
    found = service.autotag("results", "--tag", "cat", "--json")
    (line,) = found.stdout.splitlines()
    assert json.loads(line)["asset_id"] == "photos/chelsea"
    assert json.loads(line)["providers"][0]["name"] == "tensorflow"


# ── dead letters ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_looking_changes_nothing_and_shows_the_picture_where_there_is_one(open_tab: OpenTab, dms: Dms) -> None:
    page = open_tab("dead-letters")
    expect(page.locator(".letters > li")).to_have_count(3)
    until(lambda: dms.depth("dead-letters") == 3, "all are still there")
    page.get_by_label("Reason").select_option("image_truncated")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator(".letters > li")).to_have_count(1)
    page.get_by_role("link", name="Show inbox/cut.jpg").click()
    expect(page.get_by_text("Have the file uploaded again")).to_be_visible()
    expect(page.locator("pre").first).to_contain_text('"path": "cut.jpg"')
    until(lambda: dms.depth("dead-letters") == 3, "all are still there")


def test_one_is_replayed_and_the_others_stay_and_one_is_purged_after_a_question(
    open_tab: OpenTab, dms: Dms, photographs: dict[str, Path], folder: Path
) -> None:
    for name in ("late-1.jpg", "late-2.jpg"):
        (folder / name).write_bytes(photographs["coffee"].read_bytes())
    page = open_tab("dead-letters?instance=tenant-0001")
    # The picture is there by now, and is shown with the letter
    with page.expect_response("**/dead-letter-image*") as image:
        page.get_by_role("link", name="Show inbox/late-1.jpg").click()
    assert image.value.headers["content-type"] == "image/jpeg"
    # Replayed, it is tagged
    page.get_by_role("button", name="Replay inbox/late-1.jpg").click()
    expect(page.get_by_text("1 dead letter sent to the lanes again")).to_be_visible()
    (result,) = dms.results(1)
    assert (result.data["asset_id"], result.data["status"]) == ("inbox/late-1.jpg", "tagged")
    until(lambda: dms.depth("dead-letters") == 2, "the others are still there")
    # Purged only after a question, and nothing but what it named
    page.goto(page.url.partition("?")[0] + "?reason=image_truncated")
    page.get_by_role("link", name="Purge all").click()
    expect(page.get_by_text("Purge the 1 dead letter for good?")).to_be_visible()
    assert until(lambda: dms.depth("dead-letters") == 2, "it is not purged by asking")
    page.get_by_role("button", name="Purge 1").click()
    expect(page.get_by_text("1 dead letter purged")).to_be_visible()
    until(lambda: dms.depth("dead-letters") == 1, "one is left")
    # All that match are replayed after a question
    page.goto(page.url.partition("?")[0])
    page.get_by_role("link", name="Replay all").click()
    page.get_by_role("button", name="Replay 1").click()
    (result,) = dms.results(1)
    assert result.data["asset_id"] == "inbox/late-2.jpg"
    until(lambda: dms.depth("dead-letters") == 0, "none is left")


def test_nothing_is_changed_by_another_site_without_a_question_or_by_an_empty_form(url: str, dms: Dms) -> None:
    dms.publish_body(b"no json")
    until(lambda: dms.depth("dead-letters") == 1, "one is there")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    confirmed = {"confirmed": "yes"}
    with httpx.Client(base_url=url) as client:
        for path in ("/replay-dead-letters", "/purge-dead-letters"):
            assert client.post(path, data=confirmed).status_code == 403
            assert client.post(path, data={}, headers=bearer).status_code == 400
            assert client.post(path, data={"reason": "x" * 20_000} | confirmed, headers=bearer).status_code == 400
            assert client.post(path, data={"limit": "0"} | confirmed, headers=bearer).status_code == 400
            unknown = client.post(path, data={"lane": "no lane"} | confirmed, headers=bearer)
            assert unknown.status_code == 303
        assert client.get("/dead-letters").status_code == 200  # the form that asks for the token
        assert "event_not_json" not in client.get("/dead-letters").text
        client.post("/sign-in", data={"token": TOKEN}, headers={"Sec-Fetch-Site": "same-origin"})
        assert "event_not_json" in client.get("/dead-letters").text
        forged = client.post("/purge-dead-letters", data=confirmed, headers={"Sec-Fetch-Site": "cross-site"})
        assert forged.status_code == 403
        without_csrf = client.post("/purge-dead-letters", data=confirmed, headers={"Sec-Fetch-Site": "same-origin"})
        assert without_csrf.status_code == 403
        until(lambda: dms.depth("dead-letters") == 1, "it is still there")
        as_json = bearer | {"Accept": "application/json"}
        assert client.post("/purge-dead-letters", data=confirmed, headers=as_json).json()["purged"] == 1


# ── tenants ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
@pytest.mark.parametrize("query", ["", "?sort=rate", "?show=problems", "?name=tenant-05&page=3"])
def test_a_thousand_tenants_fit(open_tab: OpenTab, viewport: dict[str, int], query: str) -> None:
    page = open_tab("tenants", viewport=viewport)
    response = page.goto(page.url + query)
    assert response is not None
    assert len(response.body()) < 100_000
    assert page.evaluate("document.documentElement.scrollHeight") < 2000
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_a_thousand_tenants_do_not_swell_the_overview(open_tab: OpenTab) -> None:
    page = open_tab("", viewport=DESKTOP)
    response = page.reload()
    assert response is not None
    assert len(response.body()) < 100_000
    expect(page.locator("#providers tbody").first.locator("tr")).to_have_count(4)
    page.get_by_role("link", name="All 1\u202f001 instances").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tenants")


def test_tenants_are_filtered_and_sorted_without_scripts_and_a_missing_key_is_red(open_tab: OpenTab) -> None:
    page = open_tab("tenants", java_script_enabled=False)
    page.get_by_label("Show").select_option("with problems")
    page.get_by_role("button", name="Show", exact=True).click()
    row = page.get_by_role("row", name=KEY_MISSING)
    expect(row.locator(".state.bad").first).to_contain_text("key missing")
    page.goto(page.url.partition("?")[0])
    page.get_by_role("link", name="Answered a minute").click()
    expect(page.locator("tbody tr").first).to_contain_text("tenant-0042")
    expect(page.locator("thead th").nth(2)).to_have_attribute("aria-sort", "descending")
    page.get_by_label("Instance").fill("0007")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("off")


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
@pytest.mark.parametrize("path", ["results", "dead-letters", "tenants?show=problems"])
def test_each_tab_is_accessible_and_the_console_stays_silent(
    open_tab: OpenTab, url: str, path: str, viewport: dict[str, int], scheme: str, dms: Dms
) -> None:
    if dms.depth("dead-letters") == 0:
        dms.publish_body(b"no json")
        until(lambda: dms.depth("dead-letters") == 1, "one is there")
    page = open_tab("", viewport=viewport, color_scheme=scheme)
    messages = BrowserMessages(page)
    page.goto(f"{url}/{path}")
    with page.expect_response("**/page/version" if "tenants" not in path else "**/tenants*"):
        pass
    assert violations(page) == []
    assert messages.texts == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_pages_that_are_open_show_in_red_that_the_service_was_killed(
    broker: str, queue_prefix: str, photographs: dict[str, Path], tmp_path: Path, browser: Browser
) -> None:
    with running_service(broker, queue_prefix, tmp_path / "run", **settings(tmp_path, photographs)) as service:
        url = http_url(service)
        context = browser.new_context()
        overview, tenants, results = context.new_page(), context.new_page(), context.new_page()
        overview.goto(url)
        sign_in(overview)
        tenants.goto(f"{url}/tenants")
        results.goto(f"{url}/results")
        service.process.kill()
        service.process.wait()
        for page in (overview, tenants, results):
            expect(page).to_have_title("No answer · Autotag")
        expect(overview.get_by_role("heading", level=1)).to_have_text("No answer")
        assert "bad" in (overview.locator("#headline").get_attribute("class") or "")
        colour = overview.get_by_role("heading", level=1).evaluate("each => getComputedStyle(each).color")
        assert colour == "rgb(179, 38, 30)"
        for page in (tenants, results):
            expect(page.get_by_role("alert")).to_contain_text("No answer from Autotag")
        context.close()


def test_a_service_that_hangs_counts_as_gone_and_one_that_comes_back_is_shown_again(
    open_tab: OpenTab, service: RunningService
) -> None:
    import signal

    page = open_tab("")
    service.process.send_signal(signal.SIGSTOP)
    try:
        expect(page).to_have_title("No answer · Autotag")
    finally:
        service.process.send_signal(signal.SIGCONT)
    expect(page).not_to_have_title("No answer · Autotag")
    expect(page.get_by_role("heading", level=1)).not_to_have_text("No answer")


def test_without_scripts_the_browser_itself_loads_the_page_again(open_tab: OpenTab) -> None:
    page = open_tab("", java_script_enabled=False)
    expect(page.locator('noscript meta[http-equiv="refresh"]')).to_have_attribute("content", "30")

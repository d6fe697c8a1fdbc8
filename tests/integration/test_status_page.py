"""The status page of a real `autotag run` in a real Chromium: reading, refreshing, actions, and trying images."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.support.browser import BrowserMessages, chromium
from tests.support.monitoring import fetch, http_url
from tests.support.polling import until
from tests.support.reverse_proxy import below_a_path
from tests.support.service import Dms, RunningService, running_service

TOKEN = "a-token-for-the-page"
ROOT_PATH = "/ops/autotag"
PHONE = {"width": 360, "height": 740}

DROP = """([name, type, encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type }));
  const target = document.querySelector(".drop-zone");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-page-{os.getpid()}"


@pytest.fixture(scope="module")
def service(
    broker: str, prefix: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    settings = {
        "HTTP__TOKEN": TOKEN,
        "HTTP__ROOT_PATH": ROOT_PATH,
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["chelsea"].parent)]),
        "DEFAULTS__LABELS__RENAME": json.dumps({"tiger cat": "cat", "tabby": "cat"}),
        "INSTANCES__ACME__TENSORFLOW__CONFIDENCE_THRESHOLD": "0.99",
        "SOURCES__INLINE_MAXIMUM_BYTES": "2000000",
    }
    with running_service(broker, prefix, tmp_path_factory.mktemp("page"), **settings) as service:
        yield service.ready(within_s=120)
        assert service.stop() == 0


@pytest.fixture(scope="module")
def url(service: RunningService) -> str:
    return http_url(service)


@pytest.fixture(scope="module")
def browser(service: RunningService) -> Iterator[Browser]:
    # After the service: once Playwright runs, its event loop lets `RunningService.status` start none of its own.
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def answered(broker: str, prefix: str, service: RunningService, url: str, photographs: dict[str, Path]) -> None:
    """One event for each photograph and one for a broken file have ended, and the page knows of them."""
    dms = Dms(broker, prefix)
    broken = photographs["chelsea"].with_name("broken.jpg")
    broken.write_bytes(photographs["chelsea"].read_bytes()[:5000])
    dms.results_of([dms.publish({"path": str(file)}, asset_id=name) for name, file in photographs.items()])
    dms.results_of([dms.publish({"path": str(broken)}, asset_id="broken")])
    dms.close()
    expected = {*photographs, "broken"}
    until(lambda: expected <= {each["asset_id"] for each in report(url)["results"]}, "the page has all of them")


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[OpenPage]:
    """Opens the page in a new browser context, signed in by default."""
    contexts: list[BrowserContext] = []

    def open_in_new_context(*, signed_in: bool = True, **options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.goto(url)
        if signed_in:
            sign_in(page)
            if options.get("java_script_enabled", True):
                wait_for_script(page)
        return page

    yield open_in_new_context
    for context in contexts:
        context.close()


def wait_for_thumbnails(page: Page) -> None:
    """Wait until every image is there. Asked from here: the page's policy forbids Playwright to poll inside it."""
    loaded = "[...document.querySelectorAll('img.thumb')].every((image) => image.naturalWidth > 100)"
    until(lambda: page.evaluate(loaded), "all thumbnails are loaded")


def sign_in(page: Page) -> None:
    """Enter the token and wait for the page as the server renders it."""
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")


def wait_for_script(page: Page) -> None:
    """Wait until the page's script listens. The page is shown before that, and a file dropped earlier is lost."""
    expect(image_field(page)).to_be_enabled()


def image_field(page: Page) -> Locator:
    return page.get_by_label("Drop an image here")


def drop(page: Page, name: str, data: bytes, kind: str = "image/jpeg") -> None:
    """Drop a file onto the page, as a person would."""
    page.evaluate(DROP, [name, kind, base64.b64encode(data).decode()])


def report(url: str) -> Any:
    """What the page shows, for programs."""
    return fetch(f"{url}/status.json", {"Authorization": f"Bearer {TOKEN}"}).json()


def status(url: str) -> Any:
    """The status that `autotag status` shows, over HTTP."""
    return report(url)["status"]


def violations(page: Page) -> list[str]:
    """The accessibility violations that axe-core finds, each with the first element concerned."""
    reported = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}" for each in reported]


# ── signing in, reading ──────────────────────────────────────────────────────────────────────────────────────────────


def test_it_asks_for_the_token_and_takes_no_other(open_page: OpenPage) -> None:
    page = open_page(signed_in=False)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert "Ready" not in page.content()
    page.get_by_label("Token").fill("another")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    assert violations(page) == []


def test_it_shows_results_with_thumbnails_and_failures_with_what_to_do(
    open_page: OpenPage, url: str, answered: None
) -> None:
    page = open_page()
    results = page.get_by_role("region", name="Last results")
    expect(results.get_by_text("coffee", exact=True).first).to_be_visible()
    expect(results.get_by_text("espresso")).to_be_visible()
    # Five photographs, each with the thumbnail that a decoder has made meanwhile
    expect(page.locator("img.thumb")).to_have_count(5)
    wait_for_thumbnails(page)
    failures = page.get_by_role("region", name="What went wrong")
    expect(failures).to_contain_text("image_truncated")
    expect(failures).to_contain_text("Have the file uploaded again")
    timeline = page.get_by_role("region", name="The last 15 minutes")
    expect(timeline.get_by_role("img", name="model-1: ")).to_be_visible()
    expect(timeline.get_by_text("5 relaunches left")).to_be_visible()
    assert TOKEN not in page.content()


def test_it_asks_no_other_host_and_the_console_stays_silent(open_page: OpenPage, url: str, answered: None) -> None:
    page = open_page(signed_in=False)
    messages = BrowserMessages(page)
    sign_in(page)
    wait_for_script(page)
    with page.expect_response("**/live"):
        pass  # it has refreshed itself once
    drop(page, "small.jpg", b"\xff\xd8\xff\xe0 no more than a beginning")
    expect(page.locator("#tried")).to_contain_text("Not tagged")
    unexpected = [each for each in messages.texts if "422" not in each]  # a browser logs every error response
    assert unexpected == []
    assert messages.hosts == {url.removeprefix("http://")}


def test_it_can_be_read_and_acted_on_without_scripts(open_page: OpenPage, answered: None) -> None:
    page = open_page(java_script_enabled=False)
    expect(page.get_by_text("espresso")).to_be_visible()
    expect(image_field(page)).to_be_disabled()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")


def test_signing_out_is_not_broken_off_by_a_renewal_that_finds_the_session_ended(
    browser: Browser, url: str, answered: None
) -> None:
    # Given a page that has asked for news and is refused, as somebody signs out meanwhile; the answer to that comes
    # later, when the page has had time to ask once more
    asked: list[tuple[str, int]] = []
    armed, held, signed_out = threading.Event(), threading.Event(), threading.Event()

    def before_request(path: str) -> None:
        if path == "/live" and armed.is_set():
            held.set()
            signed_out.wait(60)

    def before_answer(path: str, status: int) -> None:
        asked.append((path, status))
        if path == "/sign-out":
            signed_out.set()
            until(lambda: ("/live", 401) in asked, "the page is refused")
            ends_at_s = time.monotonic() + 5
            while asked.count(("/live", 401)) < 2 and time.monotonic() < ends_at_s:
                time.sleep(0.05)

    with below_a_path(
        url, ROOT_PATH, removed=True, before_request=before_request, before_answer=before_answer
    ) as proxied:
        context = browser.new_context()
        page = context.new_page()
        messages = BrowserMessages(page)
        page.goto(proxied)
        sign_in(page)
        wait_for_script(page)
        armed.set()
        assert held.wait(60)
        # When somebody signs out
        page.get_by_role("button", name="Sign out").click()
        # Then the session has ended in the browser too, and the page has neither heard of the refusal nor asked again
        expect(page.get_by_label("Token")).to_be_visible(timeout=20_000)
        until(lambda: context.cookies() == [], "the cookie is gone", within_s=10)
        assert messages.texts == []
        assert asked.count(("/live", 401)) == 1
        context.close()


@pytest.mark.parametrize("removed", [True, False], ids=["path removed", "path passed on"])
def test_below_a_path_of_a_proxy_everything_works(
    browser: Browser, service: RunningService, url: str, answered: None, photographs: dict[str, Path], removed: bool
) -> None:
    # Given a proxy that serves the page below a path, and removes that path from requests, or does not
    with below_a_path(url, ROOT_PATH, removed=removed) as proxied:
        context = browser.new_context()
        page = context.new_page()
        messages = BrowserMessages(page)
        # When someone signs in there
        page.goto(proxied.rstrip("/") if not removed else proxied)
        sign_in(page)
        wait_for_script(page)
        # Then the page refreshes itself, with its thumbnails
        assert page.url == proxied
        with page.expect_response(f"{proxied}live") as refreshed:
            pass
        assert refreshed.value.ok
        wait_for_thumbnails(page)
        # And images can be tried, the service paused and resumed
        drop(page, "chelsea.png", photographs["chelsea"].read_bytes(), "image/png")
        expect(page.locator("#tried")).to_contain_text("Egyptian cat")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
        # And every link leads somewhere, the cookie no further than the path, and signing out works
        links = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
        assert {f"{proxied}{name}" for name in ("metrics", "readyz", "status.json")} <= set(links)
        for link in links:
            assert page.request.get(link, headers={"Authorization": f"Bearer {TOKEN}"}).ok, link
        assert {cookie.get("path", "").rstrip("/") for cookie in context.cookies()} == {ROOT_PATH}
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        until(lambda: context.cookies() == [], "the cookie is gone")
        assert messages.texts == []
        context.close()


# ── appearance ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 1180, "height": 800}], ids=["phone", "desktop"])
def test_it_is_accessible_in_every_scheme_and_size(
    open_page: OpenPage, answered: None, photographs: dict[str, Path], scheme: str, viewport: dict[str, int]
) -> None:
    page = open_page(color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
    page.get_by_text("What happened").click()
    drop(page, "chelsea.jpg", photographs["chelsea"].read_bytes())
    expect(page.locator("#tried h3")).to_contain_text("tag")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"], "nothing sticks out"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(each) for each in paper.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness < 150) == (scheme == "dark")


def test_unfolded_details_and_keyboard_focus_survive_a_refresh(open_page: OpenPage, answered: None) -> None:
    page = open_page()
    page.get_by_text("What happened").click()
    page.get_by_role("button", name="Reset").focus()
    for _ in range(2):  # it requests the next one after it has merged the last
        with page.expect_request("**/live"):
            pass
    expect(page.locator("#occurrences")).to_have_attribute("open", "")
    expect(page.get_by_role("button", name="Reset")).to_be_focused()


# ── acting ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_with_the_keyboard_alone_the_service_is_paused_and_resumed(open_page: OpenPage, url: str) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    while page.evaluate("document.activeElement.textContent") != "Pause":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Paused")
    expect(page.locator("#notice")).to_have_text("Paused: no more events are taken")
    assert status(url)["reason"] == "by_operator"
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
    assert status(url)["ready"]


def test_another_site_can_do_nothing_with_a_signed_in_browser(open_page: OpenPage, url: str) -> None:
    page = open_page()
    csrf_token = page.locator("form[data-action=pause] input[name=csrf_token]").get_attribute("value")
    # Given a page under another name of this very host, so close that cookies alone would not distinguish it
    other_site = page.context.new_page()
    port = url.rpartition(":")[2]
    field = f"<input name=csrf_token value='{csrf_token}'>"
    bait = f"<form id=f method=post action='{url}/pause'>{field}</form>"
    other_site.route(f"http://localhost:{port}/bait", lambda route: route.fulfill(body=bait, content_type="text/html"))
    other_site.goto(f"http://localhost:{port}/bait")
    # When it sends the form
    with other_site.expect_response(f"{url}/pause") as sent:
        other_site.evaluate("document.getElementById('f').submit()")
    # Then it is refused and nothing is paused
    assert sent.value.status == 403
    assert status(url)["ready"]


def test_after_signing_out_nothing_is_visible(open_page: OpenPage, url: str) -> None:
    page = open_page()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.goto(f"{url}/live")
    assert "Sign in first" in page.content()


def test_an_open_page_shows_when_the_service_stops_answering(open_page: OpenPage, answered: None) -> None:
    page = open_page()
    page.route("**/live", lambda route: route.abort())
    expect(page).to_have_title("No answer · Autotag")
    expect(page.get_by_role("heading", level=1)).to_have_text("No answer")
    page.unroute("**/live")
    expect(page).to_have_title("Ready · Autotag")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")


def test_a_crash_of_the_model_appears_by_itself(open_page: OpenPage, url: str, service: RunningService) -> None:
    page = open_page()
    (child,) = service.children("model")
    child.kill()
    expect(page.locator(".now", has_text="4 relaunches left")).to_be_visible()
    page.get_by_text("What happened").click()
    expect(page.locator("#occurrences")).to_contain_text("crashed: killed by SIGKILL")
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".now", has_text="5 relaunches left")).to_be_visible()
    until(lambda: status(url)["model"]["ready"], "the model was relaunched")


# ── trying an image ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_that_is_dropped_shows_each_labels_way_to_a_tag(
    open_page: OpenPage, photographs: dict[str, Path]
) -> None:
    page = open_page()
    drop(page, "chelsea <b>.jpg", photographs["chelsea"].read_bytes())
    tried = page.locator("#tried")
    expect(tried.locator("h3")).to_contain_text("tags in")
    expect(tried).to_contain_text("chelsea <b>.jpg")
    expect(tried).to_contain_text("JPEG, 451")
    assert page.evaluate("document.querySelector('#tried img').naturalWidth") == 192
    rows = {row.locator("th").inner_text().splitlines()[0]: row.inner_text() for row in tried.locator("tbody tr").all()}
    renamed = rows.get("tiger cat") or rows["tabby"]
    assert "renamed" in renamed
    assert "threshold 65 %" in renamed
    assert any("below the threshold" in row for row in rows.values())


def test_the_file_field_is_enabled_only_once_the_script_listens(
    open_page: OpenPage, photographs: dict[str, Path]
) -> None:
    page = open_page(signed_in=False)
    # Given a page that is shown and whose script has not loaded
    page.route("**/autotag.js", lambda route: route.abort())
    sign_in(page)
    expect(image_field(page)).to_be_disabled()
    # When the script loads
    page.unroute("**/autotag.js")
    page.reload()
    # Then the field is enabled, and an image that is dropped from then on is tagged
    wait_for_script(page)
    drop(page, "chelsea.jpg", photographs["chelsea"].read_bytes())
    expect(page.locator("#tried h3")).to_contain_text("tags in")


def test_an_image_is_tried_under_the_settings_of_the_instance_that_is_chosen(
    open_page: OpenPage, photographs: dict[str, Path]
) -> None:
    page = open_page()
    page.get_by_label("As an event of").select_option("acme")
    # As with the keyboard: a file is chosen, not dropped
    image_field(page).set_input_files(photographs["chelsea"])
    tried = page.locator("#tried")
    expect(tried.locator("h3")).to_contain_text("No tag in")
    expect(tried).to_contain_text("threshold 99 %")


@pytest.mark.parametrize(
    ("name", "data", "refusal"),
    [
        ("notes.txt", b"These are no pixels.\n" * 50, "not"),
        ("empty.jpg", b"", "It is empty"),
        ("large.jpg", b"\xff\xd8\xff\xe0" + b"x" * 2_000_000, "It is larger than 2.0 MB"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(open_page: OpenPage, name: str, data: bytes, refusal: str) -> None:
    page = open_page()
    drop(page, name, data, "text/plain")
    expect(page.locator("#tried .refused")).to_contain_text(refusal)
    expect(page.locator("#tried .refused")).to_contain_text("Not tagged")


def test_what_was_tried_is_neither_published_nor_kept(
    open_page: OpenPage, broker: str, prefix: str, service: RunningService, photographs: dict[str, Path]
) -> None:
    dms = Dms(broker, prefix)
    while dms.take("results"):
        pass
    page = open_page()
    drop(page, "only-tried.jpg", photographs["rocket"].read_bytes())
    expect(page.locator("#tried h3")).to_contain_text("tag")
    assert dms.depth("results") == 0
    dms.close()
    with page.expect_response("**/live") as refreshed:
        pass
    assert "only-tried" not in refreshed.value.text()
    descriptors = psutil.Process(service.process.pid).open_files()
    assert not [each for each in descriptors if "autotag-content" in each.path]


def test_programs_get_the_same_as_json(url: str, answered: None) -> None:
    found = report(url)
    assert found["status"]["ready"] is True
    assert {"astronaut", "coffee", "broken"} <= {each["asset_id"] for each in found["results"]}
    assert found["failures"][0]["reason"] == "image_truncated"
    assert len(found["steps"]) == 90
    assert fetch(f"{url}/status.json").status == 401


def test_the_parent_stays_small_with_the_page_in_use(
    service: RunningService, open_page: OpenPage, answered: None
) -> None:
    page = open_page()
    with page.expect_response("**/live"):
        pass
    assert psutil.Process(service.process.pid).memory_info().rss < 88e6

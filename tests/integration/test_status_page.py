"""The status page of a real `autotag run`, in a real Chromium: read, watched, acted on, and given images."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.support.browser import Complaints, chromium
from tests.support.monitoring import fetch, http_url
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service

TOKEN = "a-token-for-the-page"
PHONE = {"width": 360, "height": 740}

DROP = """([name, type, encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, { type }));
  const there = document.querySelector(".drop");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    there.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
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
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["chelsea"].parent)]),
        "DEFAULTS__LABELS__RENAME": json.dumps({"tiger cat": "cat", "tabby": "cat"}),
        "INSTANCES__ACME__TENSORFLOW__CONFIDENCE_THRESHOLD": "0.9",
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
def answered(broker: str, prefix: str, service: RunningService, photographs: dict[str, Path]) -> None:
    """One event for each photograph and one for a broken file have come to their end."""
    dms = Dms(broker, prefix)
    broken = photographs["chelsea"].with_name("broken.jpg")
    broken.write_bytes(photographs["chelsea"].read_bytes()[:5000])
    dms.results_of([dms.publish({"path": str(file)}, asset_id=name) for name, file in photographs.items()])
    dms.results_of([dms.publish({"path": str(broken)}, asset_id="broken")])
    dms.close()


Opens = Callable[..., Page]


@pytest.fixture
def opens(browser: Browser, url: str) -> Iterator[Opens]:
    """Opens the page in a browser that has never been there, signed in unless told otherwise."""
    contexts: list[BrowserContext] = []

    def opened(*, signed_in: bool = True, **options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.goto(url)
        if signed_in:
            sign_in(page)
            if options.get("java_script_enabled", True):
                script_is_at_work(page)
        return page

    yield opened
    for context in contexts:
        context.close()


def sign_in(page: Page) -> None:
    """Give the token and see the page, as the server draws it."""
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")


def script_is_at_work(page: Page) -> None:
    """Wait until the page's script listens. The page is drawn before that, and what falls onto it then is lost."""
    expect(image_field(page)).to_be_enabled()


def image_field(page: Page) -> Locator:
    return page.get_by_label("Drop an image here")


def drop(page: Page, name: str, data: bytes, kind: str = "image/jpeg") -> None:
    """Let a file fall onto the page, as a person would."""
    page.evaluate(DROP, [name, kind, base64.b64encode(data).decode()])


def status(url: str) -> Any:
    """What `autotag status` says, by another way."""
    return fetch(f"{url}/status.json", {"Authorization": f"Bearer {TOKEN}"}).json()["status"]


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong, each with the first element that it is about."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}" for each in found]


# ── signing in, reading ──────────────────────────────────────────────────────────────────────────────────────────────


def test_it_asks_for_the_token_and_takes_no_other(opens: Opens) -> None:
    page = opens(signed_in=False)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert "Ready" not in page.content()
    page.get_by_label("Token").fill("another")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    assert violations(page) == []


def test_it_shows_results_with_thumbnails_and_failures_with_what_to_do(opens: Opens, url: str, answered: None) -> None:
    page = opens()
    results = page.get_by_role("region", name="Last results")
    expect(results.get_by_text("coffee", exact=True)).to_be_visible()
    expect(results.get_by_text("espresso")).to_be_visible()
    # Five photographs, each with its thumbnail, which a decoder has made meanwhile
    page.wait_for_function("document.querySelectorAll('img.thumb').length === 5")
    page.wait_for_function("[...document.querySelectorAll('img.thumb')].every((image) => image.naturalWidth > 100)")
    troubles = page.get_by_role("region", name="What went wrong")
    expect(troubles).to_contain_text("image_truncated")
    expect(troubles).to_contain_text("Have the file uploaded again")
    life = page.get_by_role("region", name="The last 15 minutes")
    expect(life.get_by_role("img", name="model-1: ")).to_be_visible()
    expect(life.get_by_text("5 relaunches left")).to_be_visible()
    assert TOKEN not in page.content()


def test_it_asks_no_other_host_and_the_console_stays_silent(opens: Opens, url: str, answered: None) -> None:
    page = opens(signed_in=False)
    complaints = Complaints(page)
    sign_in(page)
    script_is_at_work(page)
    with page.expect_response("**/live"):
        pass  # it has renewed itself once
    drop(page, "small.jpg", b"\xff\xd8\xff\xe0 no more than a beginning")
    expect(page.locator("#tried")).to_contain_text("Not tagged")
    refused = [each for each in complaints.said if "422" not in each]  # a browser tells of every refusal
    assert refused == []
    assert complaints.hosts == {url.removeprefix("http://")}


def test_it_can_be_read_and_acted_on_without_scripts(opens: Opens, answered: None) -> None:
    page = opens(java_script_enabled=False)
    expect(page.get_by_text("espresso")).to_be_visible()
    expect(image_field(page)).to_be_disabled()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")


# ── looks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 1180, "height": 800}], ids=["phone", "upload_limiter"])
def test_everybody_can_use_it(
    opens: Opens, answered: None, photographs: dict[str, Path], scheme: str, viewport: dict[str, int]
) -> None:
    page = opens(color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
    page.get_by_text("What happened").click()
    drop(page, "chelsea.jpg", photographs["chelsea"].read_bytes())
    expect(page.locator("#tried h3")).to_contain_text("tag")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"], "nothing sticks out"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(each) for each in paper.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness < 150) == (scheme == "dark")


def test_what_is_folded_open_and_where_the_keyboard_is_outlast_a_renewal(opens: Opens, answered: None) -> None:
    page = opens()
    page.get_by_text("What happened").click()
    page.get_by_role("button", name="Reset").focus()
    for _ in range(2):  # it asks for the next one when it has fitted in the last
        with page.expect_request("**/live"):
            pass
    expect(page.locator("#moments")).to_have_attribute("open", "")
    expect(page.get_by_role("button", name="Reset")).to_be_focused()


# ── acting ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_with_the_keyboard_alone_the_service_is_paused_and_resumed(opens: Opens, url: str) -> None:
    page = opens()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    while page.evaluate("document.activeElement.textContent") != "Pause":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Paused")
    expect(page.locator("#said")).to_have_text("Paused: no more events are taken")
    assert status(url)["reason"] == "by_operator"
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
    assert status(url)["ready"]


def test_another_site_can_do_nothing_with_the_browser_of_who_is_signed_in(opens: Opens, url: str) -> None:
    page = opens()
    proof = page.locator("form[data-action=pause] input[name=proof]").get_attribute("value")
    # Given a page under another name of this very host, so near that cookies would not tell it apart
    stranger = page.context.new_page()
    port = url.rpartition(":")[2]
    elsewhere = f"<form id=f method=post action='{url}/pause'><input name=proof value='{proof}'></form>"
    stranger.route(
        f"http://localhost:{port}/bait", lambda route: route.fulfill(body=elsewhere, content_type="text/html")
    )
    stranger.goto(f"http://localhost:{port}/bait")
    # When it sends the form
    with stranger.expect_response(f"{url}/pause") as sent:
        stranger.evaluate("document.getElementById('f').submit()")
    # Then it is refused and nothing is paused
    assert sent.value.status == 403
    assert status(url)["ready"]


def test_who_signs_out_sees_nothing_any_more(opens: Opens, url: str) -> None:
    page = opens()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.goto(f"{url}/live")
    assert "Sign in first" in page.content()


def test_a_page_left_open_tells_when_the_service_answers_no_more(opens: Opens, answered: None) -> None:
    page = opens()
    page.route("**/live", lambda route: route.abort())
    expect(page.locator("#said")).to_contain_text("No answer since")
    page.unroute("**/live")
    expect(page.locator("#said")).to_have_text("")


def test_a_crash_of_the_model_appears_by_itself(opens: Opens, url: str, service: RunningService) -> None:
    page = opens()
    (child,) = service.children("model")
    child.kill()
    expect(page.locator(".now", has_text="4 relaunches left")).to_be_visible()
    page.get_by_text("What happened").click()
    expect(page.locator("#moments")).to_contain_text("crashed: killed by SIGKILL")
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".now", has_text="5 relaunches left")).to_be_visible()
    until(lambda: status(url)["model"]["ready"], "the model was relaunched")


# ── trying an image ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_that_is_dropped_shows_each_labels_way_to_a_tag(opens: Opens, photographs: dict[str, Path]) -> None:
    page = opens()
    drop(page, "chelsea <b>.jpg", photographs["chelsea"].read_bytes())
    tried = page.locator("#tried")
    expect(tried.locator("h3")).to_contain_text("tags in")
    expect(tried).to_contain_text("chelsea <b>.jpg")
    expect(tried).to_contain_text("JPEG, 451")
    assert page.evaluate("document.querySelector('#tried img').naturalWidth") == 192
    rows = {row.locator("th").inner_text(): row.inner_text() for row in tried.locator("tbody tr").all()}
    renamed = rows.get("tiger cat") or rows["tabby"]
    assert "renamed" in renamed
    assert "threshold 10 %" in renamed
    assert any("below the threshold" in row for row in rows.values())


def test_an_image_is_asked_for_only_once_it_would_be_taken(opens: Opens, photographs: dict[str, Path]) -> None:
    page = opens(signed_in=False)
    # Given a page that is drawn and whose script has not come
    page.route("**/autotag.js", lambda route: route.abort())
    sign_in(page)
    expect(image_field(page)).to_be_disabled()
    # When the script comes
    page.unroute("**/autotag.js")
    page.reload()
    # Then the field is open, and what falls onto the page from then on is looked at
    script_is_at_work(page)
    drop(page, "chelsea.jpg", photographs["chelsea"].read_bytes())
    expect(page.locator("#tried h3")).to_contain_text("tags in")


def test_an_image_is_tried_under_the_settings_of_the_instance_that_is_chosen(
    opens: Opens, photographs: dict[str, Path]
) -> None:
    page = opens()
    page.get_by_label("As an event of").select_option("acme")
    # The keyboard's way: a file is chosen, not dropped
    image_field(page).set_input_files(photographs["chelsea"])
    tried = page.locator("#tried")
    expect(tried.locator("h3")).to_contain_text("No tag in")
    expect(tried).to_contain_text("threshold 90 %")


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("notes.txt", b"These are no pixels.\n" * 50, "not"),
        ("empty.jpg", b"", "It is empty"),
        ("large.jpg", b"\xff\xd8\xff\xe0" + b"x" * 2_000_000, "It is larger than 2.0 MB"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(opens: Opens, name: str, data: bytes, told: str) -> None:
    page = opens()
    drop(page, name, data, "text/plain")
    expect(page.locator("#tried .refused")).to_contain_text(told)
    expect(page.locator("#tried .refused")).to_contain_text("Not tagged")


def test_what_was_tried_is_neither_published_nor_kept(
    opens: Opens, broker: str, prefix: str, service: RunningService, photographs: dict[str, Path]
) -> None:
    dms = Dms(broker, prefix)
    while dms.take("results"):
        pass
    page = opens()
    drop(page, "only-tried.jpg", photographs["rocket"].read_bytes())
    expect(page.locator("#tried h3")).to_contain_text("tag")
    assert dms.depth("results") == 0
    dms.close()
    with page.expect_response("**/live") as renewed:
        pass
    assert "only-tried" not in renewed.value.text()
    descriptors = psutil.Process(service.process.pid).open_files()
    assert not [each for each in descriptors if "autotag-content" in each.path]


def test_programs_get_the_same_as_json(url: str, answered: None) -> None:
    told = fetch(f"{url}/status.json", {"Authorization": f"Bearer {TOKEN}"}).json()
    assert told["status"]["ready"] is True
    assert {"astronaut", "coffee", "broken"} <= {each["asset_id"] for each in told["results"]}
    assert told["failures"][0]["reason"] == "image_truncated"
    assert len(told["steps"]) == 90
    assert fetch(f"{url}/status.json").status == 401


def test_the_parent_stays_small_with_the_page_in_use(service: RunningService, opens: Opens, answered: None) -> None:
    page = opens()
    with page.expect_response("**/live"):
        pass
    assert psutil.Process(service.process.pid).memory_info().rss < 80e6

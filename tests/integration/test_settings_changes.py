"""Settings of a real service changed by command and on the page: the next event obeys, and what was is had again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import BrowserMessages, chromium
from tests.support.monitoring import http_url
from tests.support.service import Dms, RunningService, running_service

TOKEN = "a-token-for-the-page"
THRESHOLD = "instances.acme.tensorflow.confidence_threshold"
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-settings-{os.getpid()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "secrets").mkdir()
    (folder / "autotag.toml").write_text(
        "[instances.acme.tensorflow]\ntags = 'labels'\nconfidence_threshold = 0.02\n"
        + "".join(f"[instances.tenant-{number:04}]\nlanguage = 'fr'\n" for number in range(1000))
    )
    return folder


@pytest.fixture(scope="module")
def service(broker: str, prefix: str, photographs: dict[str, Path], folder: Path) -> Iterator[RunningService]:
    settings = {
        "CONFIG": str(folder / "autotag.toml"),
        "SECRETS_DIR": str(folder / "secrets"),
        "HTTP__TOKEN": TOKEN,
        "HTTP__EDITOR": "true",
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["chelsea"].parent)]),
    }
    with running_service(broker, prefix, folder / "service", **settings) as service:
        yield service.ready(within_s=120)
        assert service.stop() == 0


@pytest.fixture(scope="module")
def browser(service: RunningService) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, service: RunningService) -> Iterator[Page]:
    """Signed in, at the Settings tab; nothing on it is an error in the browser's console."""
    context = browser.new_context()
    page = context.new_page()
    messages = BrowserMessages(page)
    page.goto(http_url(service))
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
    yield page
    assert [each for each in messages.texts if "422" not in each] == []
    context.close()


def least(dms: Dms, photograph: Path) -> float:
    """The lowest confidence among the tags of a photograph, as an event of acme."""
    event = dms.publish({"path": str(photograph)}, instance="acme")
    (result,) = dms.results_of([event])[event]
    return min(float(tag["confidence"]) for tag in result.data["tags"])


def said(service: RunningService, *words: str) -> dict[str, Any]:
    done = service.autotag("config", *words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def running(service: RunningService, key: str) -> dict[str, Any]:
    found: dict[str, Any] = said(service, "show", "--running", "--instance", "acme")["settings"][key]
    return found


def test_a_threshold_changed_by_command_is_obeyed_by_the_next_event_and_undone(
    service: RunningService, dms: Dms, photographs: dict[str, Path]
) -> None:
    photograph = photographs["chelsea"]
    at_first = running(service, THRESHOLD)
    assert at_first["origin"].startswith("[instances.acme] file")
    assert 0.02 <= least(dms, photograph) < 0.2
    done = service.autotag("config", "set", THRESHOLD, "0.2")
    assert done.returncode == 0, done.stderr
    assert "in force in the service" in done.stdout
    assert least(dms, photograph) >= 0.2
    now = running(service, THRESHOLD)
    assert now["value"] == 0.2
    assert now["origin"].startswith("[instances.acme] overlay")
    assert now["since"] >= at_first["since"]
    assert service.autotag("config", "undo").returncode == 0
    assert 0.02 <= least(dms, photograph) < 0.2
    assert running(service, THRESHOLD)["origin"] == at_first["origin"]


def test_what_is_written_without_a_reload_is_shown_as_what_a_reload_would_change(service: RunningService) -> None:
    said(service, "set", "--no-reload", THRESHOLD, "0.3")
    waiting = running(service, THRESHOLD)
    assert (waiting["value"], waiting["changes_at"], waiting["next_value"]) == (0.02, "reload", 0.3)
    assert THRESHOLD in said(service, "show", "--running")["would_change"]
    said(service, "undo", "--no-reload")
    assert "changes_at" not in running(service, THRESHOLD)


def test_what_takes_effect_at_the_next_start_only_is_said(service: RunningService) -> None:
    done = service.autotag("config", "set", "http.allowed_hosts", "tags.example.org")
    assert "at its next start" in done.stdout
    shown = said(service, "show", "--running")["settings"]["http.allowed_hosts"]
    assert (shown["value"], shown["changes_at"], shown["next_value"]) == ([], "restart", ["tags.example.org"])
    service.autotag("config", "undo")


def test_what_the_service_cannot_work_with_is_taken_back(service: RunningService) -> None:
    before = said(service, "history")["fingerprint"]
    done = service.autotag("config", "set", "tensorflow.start_timeout_s", "0.001")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "taken back" in done.stderr
    assert said(service, "history")["fingerprint"] == before
    assert service.autotag("reload").returncode == 0


def test_a_secret_is_written_for_its_owner_alone_and_shown_by_nothing(service: RunningService, folder: Path) -> None:
    key = "instances.acme.google_cloud_vision.api_key"
    done = service.autotag("config", "set", key, "AIza-of-acme")
    assert done.returncode == 0, done.stderr
    file = folder / "secrets" / "instances__acme__google_cloud_vision__api_key"
    assert file.stat().st_mode & 0o777 == 0o600
    shown = running(service, key)
    assert shown["secret"]
    assert re.fullmatch("[0-9a-f]{6}", shown["value"])
    everything = "".join(service.autotag("config", *words).stdout for words in (("show",), ("history",)))
    everything += done.stdout + done.stderr + service.logged() + json.dumps(said(service, "history"))
    assert "AIza-of-acme" not in everything
    assert service.autotag("config", "unset", key).returncode == 0
    assert running(service, key)["value"] is None


def test_after_a_restart_an_overlay_that_is_damaged_or_refused_does_not_keep_the_service_from_its_work(
    broker: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    prefix = f"test-settings-damaged-{os.getpid()}"
    roots = {"SOURCES__PATH_ROOTS": json.dumps([str(photographs["chelsea"].parent)])}
    overlay = tmp_path / "state" / "overlay.toml"
    overlay.parent.mkdir()
    overlay.write_text("amqp.prefetch = -1\n[instances.acme.tensorflow]\nconfidence_threshold = 0.2\ntags = 'labels'\n")
    for damage in (None, b"[[["):
        if damage is not None:
            overlay.write_bytes(damage)
        with running_service(broker, prefix, tmp_path, **roots) as service:
            service.ready(within_s=120)
            dms = Dms(broker, prefix)
            assert least(dms, photographs["chelsea"]) >= 0.2
            dms.close()
            logged = [json.loads(line) for line in service.logged().splitlines() if line.startswith("{")]
            assert [each["why"] for each in logged if each["event"] == "a setting of the overlay is left out"]
            if damage is None:
                done = service.autotag("config", "unset", "amqp.prefetch")  # keeps a version, for the second start
                assert done.returncode == 0, done.stderr
            assert service.stop() == 0


def test_a_threshold_changed_on_the_page_is_obeyed_by_the_next_event_and_undone(
    page: Page, dms: Dms, photographs: dict[str, Path]
) -> None:
    photograph = photographs["chelsea"]
    assert least(dms, photograph) < 0.2
    page.get_by_label("Instance").fill("acme")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings of acme")
    page.get_by_role("link", name="Edit this instance").click()
    field = page.get_by_label("tensorflow.confidence_threshold")
    field.fill("2")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("must be a number from 0 to 1")
    expect(field).to_have_value("2")
    field.fill("0.2")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved, and in force")
    row = page.get_by_role("row").filter(has_text="Tags below this are left out").first
    expect(row).to_contain_text("overlay")
    assert least(dms, photograph) >= 0.2
    page.get_by_role("button", name="Undo the last change").click()
    expect(page.get_by_role("status")).to_contain_text("back to version")
    assert least(dms, photograph) < 0.2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1120, PHONE["width"]])
def test_the_tab_and_the_editor_are_accessible_and_fit(page: Page, scheme: Any, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": PHONE["height"]})
    for name in ("settings?instance=acme&show=all", "settings?instance=tenant", "settings-edit?instance=acme"):
        page.goto(f"{page.url.partition('settings')[0]}{name}")
        reported = Axe().run(page).response["violations"]
        assert [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in reported] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert len(page.content()) < 100_000

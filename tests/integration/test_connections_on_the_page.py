"""The page shows how a real `autotag connect` is: at work, before a target that lets it in no more, killed, stopped."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pika
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.integration.test_status_page import TOKEN, violations
from tests.support.browser import BrowserMessages, chromium
from tests.support.connector import RunningConnector, running_connector
from tests.support.fake_targets import PlainTarget, Reply, plain_connection, serving_target
from tests.support.monitoring import http_url
from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service
from worker.amqp.connect_status import status_queue
from worker.amqp.topology import topology

PHONE: ViewportSize = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-connections-{os.getpid()}"


@pytest.fixture(scope="module")
def target() -> Iterator[PlainTarget]:
    target = PlainTarget()
    with serving_target(target):
        yield target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("connections")


@pytest.fixture(scope="module")
def configuration(target: PlainTarget) -> str:
    inlet = '[connect.photos.inlet]\nenabled = true\ntoken = "inlet-token-0123456789"\n'
    return plain_connection("photos", target) + inlet


@pytest.fixture(scope="module")
def service(
    broker: str, prefix: str, photographs: dict[str, Path], folder: Path, configuration: str
) -> Iterator[RunningService]:
    file = folder / "service.toml"
    file.write_text(configuration)
    file.chmod(0o600)
    settings = {
        "CONFIG": str(file),
        "HTTP__TOKEN": TOKEN,
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["chelsea"].parent)]),
    }
    with running_service(broker, prefix, folder / "run", **settings) as service:
        yield service.ready(within_s=120)
        assert service.stop() == 0


@pytest.fixture(scope="module")
def dms(broker: str, prefix: str, service: RunningService) -> Iterator[Dms]:
    dms = Dms(broker, prefix)
    yield dms
    dms.close()


@pytest.fixture(scope="module")
def connector(
    broker: str, prefix: str, folder: Path, configuration: str, service: RunningService
) -> Iterator[RunningConnector]:
    with running_connector(broker, prefix, folder, configuration) as connector:
        yield connector
    connection = pika.BlockingConnection(pika.URLParameters(broker))
    for queue in (status_queue(topology(prefix, (1,))), f"{prefix}.connect.photos"):
        connection.channel().queue_delete(queue)
    connection.close()


@pytest.fixture(scope="module")
def url(service: RunningService) -> str:
    return http_url(service)


@pytest.fixture(scope="module")
def browser(connector: RunningConnector) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(viewport=PHONE, color_scheme="dark")
    page = context.new_page()
    messages = BrowserMessages(page)
    page.goto(url)
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    yield page
    assert messages.texts == []
    context.close()


def reported(url: str) -> Any:
    """What the service knows of the connector, as JSON."""
    found = httpx.get(f"{url}/status.json", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
    return found.json()["connector"]


def section(page: Page) -> Any:
    return page.locator("#connections")


def upload(dms: Dms, target: PlainTarget, photograph: Path, asset: str) -> None:
    target.assets[asset] = ["of a person"]
    dms.publish({"path": str(photograph)}, asset_id=asset, context={"connect": "photos"})


def test_what_is_written_and_a_target_that_lets_it_in_no_more_and_then_does_again(
    page: Page, url: str, dms: Dms, target: PlainTarget, photographs: dict[str, Path]
) -> None:
    # When a result is written
    upload(dms, target, photographs["chelsea"], "1")
    until(lambda: "cat" in target.assets["1"], "it is written")
    expect(section(page)).to_contain_text("1 written")
    expect(section(page)).to_contain_text("are written")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    # And when the target refuses the key
    target.fault = lambda _request: Reply.of({"error": "no"}, 401)
    upload(dms, target, photographs["coffee"], "2")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready, but not connected")
    expect(section(page)).to_contain_text("unauthorized, since")
    expect(section(page)).to_contain_text("autotag connect check photos")
    until(lambda: reported(url)["waiting"]["photos"] == 1, "the result waits in its queue")
    assert violations(page) == []
    # And takes it again
    target.fault = lambda _request: Reply(0)
    until(lambda: len(target.assets["2"]) > 1, "it is written")
    expect(section(page)).to_contain_text("2 written")
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready")


def test_without_the_token_there_is_nothing_of_it(url: str, connector: RunningConnector) -> None:
    assert "photos" not in httpx.get(url).text
    assert httpx.get(f"{url}/status.json").status_code == 401


def test_many_who_look_at_once_all_see_it_and_take_nothing_away(
    url: str, connector: RunningConnector, broker: str, prefix: str
) -> None:
    until(lambda: reported(url) is not None, "it was heard of")
    assert all(reported(url)["connections"]["photos"]["target"] for _ in range(20))
    connection = pika.BlockingConnection(pika.URLParameters(broker))
    queue = status_queue(topology(prefix, (1,)))

    def is_there() -> bool:
        found: int = connection.channel().queue_declare(queue, passive=True).method.message_count
        return found == 1

    until(is_there, "the message is in its queue")
    connection.close()


def test_a_connector_that_was_killed_is_missed_and_tagging_goes_on(
    page: Page, url: str, dms: Dms, connector: RunningConnector, photographs: dict[str, Path]
) -> None:
    os.kill(connector.process.pid, signal.SIGKILL)
    connector.process.wait()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ready, but not connected", timeout=60_000)
    expect(section(page)).to_contain_text("was last heard of")
    event = dms.publish({"path": str(photographs["coffee"])}, instance="elsewhere")
    assert dms.results_of([event])
    assert violations(page) == []


def test_one_that_ends_in_order_says_so(
    page: Page, broker: str, prefix: str, folder: Path, configuration: str, service: RunningService
) -> None:
    with running_connector(broker, prefix, folder / "again", configuration) as again:
        expect(page.get_by_role("heading", level=1)).to_have_text("Ready", timeout=60_000)
        assert again.stop() == 0
    expect(section(page)).to_contain_text("was stopped")

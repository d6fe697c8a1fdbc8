"""The poller beside a real RabbitMQ and a real HTTP server: everything new is published, once, whatever happens."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
from rabbitmq_node import PrivateBroker

from tests.support.connector import running_connector
from tests.support.fake_targets import FakeNextcloud, FakeResourceSpace, Reply, StoredFile, serving_target
from tests.support.polling import until
from tests.support.service import Dms
from worker.settings.cursors import moment_text


@dataclass
class Listing:
    """A system that lists its images by the time of their change. `broken` is answered in its place."""

    url: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)
    broken: tuple[int, bytes] | None = None
    asked: int = 0

    def add(self, number: int, second: int, **changes: Any) -> None:
        moment = f"2026-11-27T10:{second // 60:02}:{second % 60:02}.000Z"
        self.items.append({"id": f"a{number}", "changed": moment, "sum": f"s{number}", "kind": "image", **changes})

    def answer(self, query: dict[str, list[str]]) -> tuple[int, bytes]:
        self.asked += 1
        if self.broken is not None:
            return self.broken
        since, size, page = query["since"][0], int(query["size"][0]), int(query["page"][0])
        found = sorted((each for each in self.items if each["changed"] >= since), key=lambda each: each["changed"])
        return 200, json.dumps({"items": found[(page - 1) * size : page * size]}).encode()


@contextmanager
def serving(listing: Listing) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = listing.answer(parse_qs(urlsplit(self.path).query))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listing.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@pytest.fixture
def listing() -> Iterator[Listing]:
    system = Listing()
    with serving(system):
        yield system


def configuration(listing: Listing, *, name: str = "archive", **changes: object) -> str:
    values = {"every_s": 1, "overlap_s": 120, "page_size": 10, "begin": "2026-11-27T00:00:00Z", **changes}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return f"""
[connect.{name}]
url = "{listing.url}"
[connect.{name}.poll]
enabled = true
path = "/list?since={{cursor}}&size={{page_size}}&page={{page}}"
items = "items"
cursor = "changed"
asset_id = "id"
accept = "kind == 'image'"
content_url = "/images/{{asset_id}}"
mark = "sum"
{chr(10).join(lines)}
"""


def gather(dms: Dms, found: Counter[str]) -> Counter[str]:
    """Add all that waits in the queue, by asset."""
    for message in dms.waiting("images.live"):
        found[json.loads(message.body)["data"]["asset_id"]] += 1
    return found


@pytest.fixture
def dms(broker: str, queue_prefix: str) -> Iterator[Dms]:
    queues = Dms(broker, queue_prefix)
    yield queues
    queues.close()


def test_each_new_image_is_published_once_though_listings_overlap_and_pages_share_a_time(
    broker: str, queue_prefix: str, dms: Dms, listing: Listing, tmp_path: Path
) -> None:
    for number in range(35):
        listing.add(number, second=7)  # more than three pages of one and the same time
    for number in range(35, 60):
        listing.add(number, second=number)
    listing.add(99, second=3, kind="video")
    found: Counter[str] = Counter()
    with running_connector(broker, queue_prefix, tmp_path, configuration(listing)) as connector:
        until(lambda: len(gather(dms, found)) == 60, "all are published")
        # When an index that lags behind shows an older one, and one changes
        listing.add(70, second=5)
        listing.items[3]["sum"] = "another"
        until(lambda: len(gather(dms, found)) == 61, "the late one is published")
        until(lambda: gather(dms, found)["a3"] == 2, "the one that changed is published once more")
        asked = listing.asked
        until(lambda: listing.asked > asked + 10, "it goes on listing")
        assert connector.status()["connections"]["archive"]["poll"]["trouble"] is None
        assert connector.counted("autotag_connect_uploads_total", outcome="passed_over") > 0
        assert connector.stop() == 0
    # Then nothing was published twice, also not after a restart
    with running_connector(broker, queue_prefix, tmp_path, configuration(listing)):
        asked = listing.asked
        until(lambda: listing.asked > asked + 10, "it lists again")
    gather(dms, found)
    assert found.pop("a3") == 2
    assert set(found.values()) == {1}
    assert "a99" not in found


def test_the_newest_resources_of_resourcespace_are_listed_with_signed_queries(
    broker: str, queue_prefix: str, dms: Dms, tmp_path: Path
) -> None:
    space = FakeResourceSpace()
    space.images = {"7": b"", "8": b""}
    settings = f"""
[connect.space]
preset = "resourcespace"
url = "{{url}}"
credential = {{{{ username = "{space.user}", secret_key = "{space.key}", kind = "signed_query" }}}}
poll = {{{{ every_s = 1 }}}}
"""
    with serving_target(space):
        configured = settings.format(url=space.url)
        with running_connector(broker, queue_prefix, tmp_path, configured) as connector:
            events: list[dict[str, Any]] = []

            def published() -> int:
                events.extend(json.loads(message.body)["data"] for message in dms.waiting("images.live"))
                return len(events)

            until(lambda: published() == 2, "both are published")
            assert {each["asset_id"]: each["content"]["url"] for each in events} == {
                number: f"{space.url}/filestore/{number}_scr.jpg?v=1" for number in ("7", "8")
            }
            asked = len(space.requests)
            until(lambda: len(space.requests) > asked + 2, "it goes on listing")
            assert published() == 2
            assert space.key not in connector.logged()
            assert connector.stop() == 0


FAILURES: tuple[tuple[tuple[int, bytes], str], ...] = (
    ((401, b"no"), "system_refuses"),
    ((403, b"no"), "system_refuses"),
    ((500, b"oops"), "system_busy"),
    ((429, b""), "system_busy"),
    ((200, b"<html>Please sign in</html>"), "listing_not_readable"),
    ((200, b'{"things": []}'), "listing_not_readable"),
    ((200, b"[" * 100_000), "listing_not_readable"),
    ((404, b""), "listing_refused"),
    ((302, b""), "listing_refused"),
)


def test_each_system_that_fails_is_named_with_its_reason_and_nothing_is_lost(
    broker: str, queue_prefix: str, dms: Dms, tmp_path: Path
) -> None:
    # Given a connection to a system for each way of failing
    systems = {f"archive-{number}": Listing(broken=broken) for number, (broken, _) in enumerate(FAILURES)}
    reasons = {name: reason for name, (_, reason) in zip(systems, FAILURES, strict=True)}
    with ExitStack() as served:
        for number, system in enumerate(systems.values()):
            served.enter_context(serving(system))
            system.add(number, second=1)
        settings = "".join(configuration(system, name=name) for name, system in systems.items())
        with running_connector(broker, queue_prefix, tmp_path, settings) as connector:

            def troubles() -> dict[str, str | None]:
                connections = connector.status()["connections"]
                return {name: (each["poll"]["trouble"] or {}).get("reason") for name, each in connections.items()}

            until(lambda: troubles() == reasons, "each says its reason")
            # When they work again
            for system in systems.values():
                system.broken = None
            until(lambda: set(troubles().values()) == {None}, "all work again")
            found: Counter[str] = Counter()
            until(lambda: len(gather(dms, found)) == len(systems), "what was missed is published")
            assert set(found.values()) == {1}


def test_items_that_cannot_be_read_are_passed_over_and_hold_nobody_up(
    broker: str, queue_prefix: str, dms: Dms, listing: Listing, tmp_path: Path
) -> None:
    listing.add(1, second=1, id=None)
    listing.add(2, second=2, id="..")
    listing.items.append({"changed": "2026-11-27T10:00:03.000Z", "kind": "image"})
    listing.add(3, second=4)
    found: Counter[str] = Counter()
    with running_connector(broker, queue_prefix, tmp_path, configuration(listing)) as connector:
        until(lambda: gather(dms, found) == {"a3": 1}, "the good one is published")
        until(lambda: connector.counted("autotag_connect_uploads_total", outcome="refused") >= 3, "they are counted")
        assert "asset_id" in connector.logged()


def more_came(dms: Dms, found: Counter[str], before: int) -> bool:
    return sum(gather(dms, found).values()) > before or len(found) == 2000


@pytest.mark.broker
def test_a_connector_that_is_killed_while_it_publishes_loses_nothing(
    private_broker: Callable[..., PrivateBroker], listing: Listing, tmp_path: Path
) -> None:
    node = private_broker()
    for number in range(2000):
        listing.add(number, second=number // 4)
    settings = configuration(listing, page_size=100)
    dms, found = Dms(node.url, "poll"), Counter[str]()
    for _ in range(4):
        with running_connector(node.url, "poll", tmp_path, settings) as connector:
            until(partial(more_came, dms, found, sum(found.values())), "it publishes")
            connector.process.kill()
    with running_connector(node.url, "poll", tmp_path, settings) as connector:
        until(lambda: len(gather(dms, found)) == 2000, "all are published", within_s=120)
        until(
            lambda: connector.status()["connections"]["archive"]["poll"]["last_complete_s"], "the listing is complete"
        )
    gather(dms, found)
    # At least once each: what was published twice, around a kill, has the same event id
    assert len(found) == 2000
    assert sum(found.values()) < 2000 + 4 * 100
    dms.close()


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 1000])
def test_a_damaged_memory_of_what_was_seen_is_set_aside(
    broker: str, queue_prefix: str, dms: Dms, listing: Listing, tmp_path: Path, damage: bytes
) -> None:
    state = tmp_path / "connect-state"
    state.mkdir()
    (state / "connect-seen.sqlite").write_bytes(damage)
    listing.add(1, second=1)
    with running_connector(broker, queue_prefix, tmp_path, configuration(listing)) as connector:
        until(lambda: gather(dms, Counter()) == {"a1": 1}, "it is published")
        assert connector.status()["seen_fault"] is None
        if damage:
            assert (state / "connect-seen.sqlite.damaged").exists()


def test_while_what_was_seen_cannot_be_kept_nothing_is_listed_and_nothing_is_lost(
    broker: str, queue_prefix: str, dms: Dms, listing: Listing, tmp_path: Path
) -> None:
    listing.add(1, second=1)
    found: Counter[str] = Counter()
    with running_connector(broker, queue_prefix, tmp_path, configuration(listing)) as connector:
        until(lambda: gather(dms, found) == {"a1": 1}, "it is published")
        with closing(sqlite3.connect(tmp_path / "connect-state" / "connect-seen.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")  # it can be read, and not written
            listing.add(2, second=2)

            def trouble() -> str | None:
                return (connector.status()["connections"]["archive"]["poll"]["trouble"] or {}).get("reason")

            until(lambda: trouble() == "seen_not_writable", "it says so")
            assert (
                connector.counted("autotag_connect_poll_trouble", connection="archive", reason="seen_not_writable") == 1
            )
            asked = listing.asked
            assert connector.is_ready()
            until(lambda: connector.counted("autotag_connect_polls_total", outcome="seen_not_writable") > 2, "it tries")
            assert listing.asked == asked
            other.rollback()
        until(lambda: gather(dms, found) == {"a1": 1, "a2": 1}, "it is published once it can be kept")
        until(lambda: trouble() is None, "it works again")
        assert connector.counted("autotag_connect_poll_trouble") == 0


def test_an_operator_lists_once_more_from_an_earlier_day_while_the_connector_runs(
    broker: str, queue_prefix: str, dms: Dms, listing: Listing, tmp_path: Path
) -> None:
    def rewind(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "worker", "connect", "rewind", "archive", *words]
        settings = {
            "AUTOTAG_CONFIG": str(tmp_path / "connect.toml"),
            "AUTOTAG_STATE_DIR": str(tmp_path / "connect-state"),
        }
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **settings}
        )

    for number in range(30):
        listing.add(number, second=number)
    found: Counter[str] = Counter()
    with running_connector(broker, queue_prefix, tmp_path, configuration(listing, begin="now")) as connector:
        until(lambda: listing.asked > 3, "it lists")
        assert gather(dms, found) == {}, "what is older than the first start is nobody's business"
        assert rewind("--to", "yesterday").returncode == 2
        assert rewind("--to", "2026-11-27T09:00:00Z").returncode == 0
        until(lambda: len(gather(dms, found)) == 30, "all are published")
        assert rewind("--to", "2026-11-27T09:00:00Z", "--again").returncode == 0
        until(lambda: set(gather(dms, found).values()) == {2}, "all are published once more")
        assert connector.status()["connections"]["archive"]["poll"]["trouble"] is None


def test_a_check_reads_one_page_and_publishes_nothing(
    broker: str, queue_prefix: str, dms: Dms, listing: Listing, tmp_path: Path
) -> None:
    def check() -> subprocess.CompletedProcess[str]:
        file = tmp_path / "connect.toml"
        file.write_text(configuration(listing, begin="now"))
        file.chmod(0o600)
        settings = {
            "AUTOTAG_CONFIG": str(file),
            "AUTOTAG_STATE_DIR": str(tmp_path / "state"),
            "AUTOTAG_AMQP__URL": broker,
        }
        return subprocess.run(
            [sys.executable, "-m", "worker", "connect", "check", "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **settings, "AUTOTAG_AMQP__QUEUE_PREFIX": queue_prefix},
        )

    assert "no item yet" in check().stdout
    for number in range(5):
        listing.add(number, second=number)
    listing.add(5, second=5, kind="video")
    listing.add(6, second=6, id="..")
    asked = listing.asked
    checked = check()
    assert checked.returncode == 0, checked.stdout + checked.stderr
    said = json.loads(checked.stdout)
    assert (said["connection"], said["part"], said["ok"]) == ("archive", "poll", True)
    assert "of 7 items on its first page 5 are images to tag, 1 passed over, 1 can't be read" in said["message"]
    assert listing.asked == asked + 1
    listing.broken = (401, b"no")
    refused = check()
    assert refused.returncode == 1
    assert "does not let us in" in json.loads(refused.stdout)["message"]
    assert not (tmp_path / "state").exists()
    assert gather(dms, Counter()) == {}


def test_the_images_of_nextcloud_are_listed_by_their_upload(
    broker: str, queue_prefix: str, dms: Dms, tmp_path: Path
) -> None:
    cloud = FakeNextcloud()
    begin_s = 1_780_000_000
    for number in range(35):  # more than three pages of one second
        cloud.files[str(number)] = StoredFile(f"/files/ann/Fotos/ä & {number}.jpg", f"e{number}", begin_s + 50)
    cloud.files["old"] = StoredFile("/files/ann/old.jpg", "old", begin_s - 1000)
    cloud.files["scan"] = StoredFile("/files/ann/scan.jpg", "scan", 0)
    cloud.files["film"] = StoredFile("/files/ann/film.mp4", "film", begin_s + 60, "video/mp4")
    cloud.files["other"] = StoredFile("/files/bob/a.jpg", "other", begin_s + 60)
    cloud.files["new"] = StoredFile("/files/ann/new.jpg", "new", begin_s + 70)
    with serving_target(cloud):
        settings = f"""
[connect.files]
preset = "nextcloud"
url = "{cloud.url}"
inlet.enabled = false
target.enabled = false
credential = {{ kind = "basic", username = "admin", password = "app-password" }}
poll = {{ enabled = true, prefix = "/files/ann", every_s = 1, page_size = 10, begin = "{moment_text(begin_s)}" }}
"""
        urls: dict[str, str] = {}

        def seen() -> Counter[str]:
            for message in dms.waiting("images.live"):
                data = json.loads(message.body)["data"]
                found[data["asset_id"]] += 1
                urls[data["asset_id"]] = data["content"]["url"]
            return found

        found: Counter[str] = Counter()
        expected = {str(number): 1 for number in range(35)} | {"new": 1}
        with running_connector(broker, queue_prefix, tmp_path, settings) as connector:
            until(lambda: seen() == expected, "all of them are published")
            assert urls["7"] == f"{cloud.url}/remote.php/dav/files/ann/Fotos/%C3%A4%20%26%207.jpg"
            cloud.files["7"] = StoredFile(cloud.files["7"].path, "another", begin_s + 80)
            until(lambda: seen() == expected | {"7": 2}, "one that was replaced is published once more")
            assert connector.status()["connections"]["files"]["poll"]["trouble"] is None
            # When it answers with its page to sign in
            cloud.fault = lambda _request: Reply(200, b"<!DOCTYPE html><html>", {"Content-Type": "text/html"})
            until(
                lambda: connector.counted("autotag_connect_poll_trouble", reason="listing_not_readable") == 1,
                "it says so",
            )


def test_a_long_listing_takes_no_more_memory(
    broker: str, queue_prefix: str, dms: Dms, listing: Listing, tmp_path: Path
) -> None:
    for number in range(6000):
        listing.add(number, second=number // 2)
    settings = configuration(listing, page_size=200)
    with running_connector(broker, queue_prefix, tmp_path, settings) as connector:
        process = psutil.Process(connector.process.pid)
        found: Counter[str] = Counter()
        until(lambda: len(gather(dms, found)) > 1000, "it publishes", within_s=120)
        early = process.memory_info().rss
        until(lambda: len(gather(dms, found)) == 6000, "all are published", within_s=120)
        assert process.memory_info().rss < early + 20_000_000

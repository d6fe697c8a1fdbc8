"""SIGHUP under load: valid settings take effect without losing a delivery; invalid settings change nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.support.polling import until
from tests.support.processes import gone
from tests.support.scene import Scene, scene
from worker.messages import Result
from worker.messages.results import result_id
from worker.settings import load_settings, settings_digest


@pytest.fixture
def configured(broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]) -> Iterator[Scene]:
    """A service with a settings file that the test changes."""
    file = tmp_path / "autotag.toml"
    file.write_text("[defaults.labels]\n")
    with scene(broker, queue_prefix, tmp_path / "run", photographs, CONFIG=str(file)) as it:
        yield it


def send_sighup(it: Scene) -> None:
    it.service.process.send_signal(signal.SIGHUP)


def test_valid_settings_that_need_other_children_take_effect_under_load(configured: Scene, tmp_path: Path) -> None:
    # Given a service under load
    configured.under_load(200)
    before = configured.child("model")
    # When its settings file requires another model child, and it gets SIGHUP
    (tmp_path / "autotag.toml").write_text("[tensorflow]\nbatch_size = 4\n")
    send_sighup(configured)
    # Then another child takes over, and the first is stopped when its last image is done
    until(lambda: configured.logged("settings reloaded", new_engine=True), "the settings are in force")
    until(lambda: gone(before), "the old child has been stopped")
    configured.load(50)
    configured.ledger.settle()
    assert configured.ledger.statuses() == {"tagged"}
    assert configured.ledger.dead == {}
    assert configured.logged("child crashed") == []


def test_valid_settings_for_tags_take_effect_for_the_events_that_follow(configured: Scene, tmp_path: Path) -> None:
    configured.under_load(50)
    (tmp_path / "autotag.toml").write_text("[defaults.tensorflow]\nconfidence_threshold = 1.0\n")
    send_sighup(configured)
    until(lambda: configured.logged("settings reloaded", new_engine=False), "the settings are in force")
    after = configured.load(20)
    configured.ledger.settle()
    assert configured.ledger.statuses(after) == {"no_tags"}


def test_a_rules_file_is_read_again_and_one_with_a_fault_changes_nothing(configured: Scene, tmp_path: Path) -> None:
    configured.load(5)
    configured.ledger.settle()

    def tags() -> set[str]:
        messages = (message for each in configured.ledger.results.values() for message in each)
        return {tag["name"] for message in messages for tag in message.data["tags"]}

    seen = tags()
    # Given a rules file that drops whatever was a tag
    rules = tmp_path / "rules.toml"
    rules.write_text(f"drop = {json.dumps(sorted(seen))}\n")
    (tmp_path / "autotag.toml").write_text(f"[defaults.labels]\nrules_file = {json.dumps(str(rules))}\n")
    send_sighup(configured)
    until(lambda: configured.logged("settings reloaded", new_engine=False), "the rules are in force")
    # When it has a fault at the next reload
    rules.write_text("dorp = []\n")
    send_sighup(configured)
    refused = until(lambda: configured.logged("reload refused; the settings stay as they were"), "it is refused")
    assert f"{rules}: dorp is no rule; did you mean drop?" in refused[0]["error"]
    # Then the rules from before still hold
    configured.ledger.results.clear()
    configured.ledger.published.clear()
    configured.load(5)
    configured.ledger.settle()
    assert seen
    assert not seen & tags()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[tensorflow]\nbatch_size = 1000\n", "batch_size"),
        ("this is no TOML", "autotag.toml"),
    ],
)
def test_invalid_settings_are_refused_with_the_reason_and_the_old_ones_stay(
    configured: Scene, tmp_path: Path, text: str, why: str
) -> None:
    configured.under_load(100)
    model = configured.child("model")
    (tmp_path / "autotag.toml").write_text(text)
    send_sighup(configured)
    refused = until(
        lambda: configured.logged("reload refused; the settings stay as they were"), "the refusal is in the log"
    )
    assert why in refused[0]["error"]
    configured.load(50)
    configured.ledger.settle()
    assert configured.ledger.statuses() == {"tagged"}
    assert configured.child("model").pid == model.pid


# ── an event that is in hand while the settings change ───────────────────────────────────────────────────────────────


class HeldHost:
    """A host of images that answers a request only once it is released, then with `status`."""

    def __init__(self, status: int) -> None:
        self.asked, self.released = Event(), Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.set()
                host.released.wait(60)
                self.send_error(status)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/a.jpg"
        self._thread = Thread(target=self._server.serve_forever)

    @contextmanager
    def serving(self) -> Iterator[HeldHost]:
        self._thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


OF_THE_BEGINNING = """
[retry]
maximum_number_of_attempts = 1
[sources]
url_allowed_hosts = ["127.0.0.1:*"]
url_allow_private_addresses = true
"""
AFTER_IT = "maximum_number_of_tags_per_asset = 3\n" + OF_THE_BEGINNING.replace("attempts = 1", "attempts = 9")


@pytest.mark.parametrize(("status", "reason"), [(404, "content_missing"), (400, "content_http_status")])
def test_an_event_in_hand_ends_under_the_settings_that_it_began_with(
    configured: Scene, tmp_path: Path, status: int, reason: str
) -> None:
    file = tmp_path / "autotag.toml"
    file.write_text(OF_THE_BEGINNING)
    send_sighup(configured)
    until(lambda: configured.logged("settings reloaded"), "the settings of the beginning are in force")
    with HeldHost(status).serving() as host:
        # Given an event whose image is being fetched when the settings are reloaded
        event_id = configured.dms.publish({"url": host.url}, asset_id="asset-1")
        until(host.asked.is_set, "the image is being fetched")
        file.write_text(AFTER_IT)
        send_sighup(configured)
        until(lambda: len(configured.logged("settings reloaded")) == 2, "the new settings are in force")
        # When the fetch fails
        host.released.set()
        (result,) = configured.dms.results_of([event_id])[event_id]
    # Then it was the last attempt, as it was at its beginning, and its result has the digest of that time
    assert (result.data["status"], result.data["reason"]) == ("failed", reason)
    before, after = (digest(text, tmp_path / name) for text, name in ((OF_THE_BEGINNING, "old"), (AFTER_IT, "new")))
    assert before != after
    made_under_the_old = Result(
        asset_id="asset-1",
        instance="default",
        event_id=event_id,
        status="failed",
        reason=reason,
        message=result.data["message"],
    )
    assert result.properties.message_id == str(result_id(made_under_the_old, "/dms", before))


def digest(text: str, file: Path) -> str:
    """The settings digest of the default instance in a service of this test."""
    file.write_text(text)
    names = {
        "AUTOTAG_DEFAULTS__TENSORFLOW__ENABLED": "true",
        "AUTOTAG_TENSORFLOW__MODEL": "efficientnet-lite0",
    }
    settings = load_settings(file, environ=os.environ | names, directory=file.parent / "nothing").settings
    return settings_digest(settings, settings.defaults)

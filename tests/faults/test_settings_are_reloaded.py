"""SIGHUP under load: valid settings take effect without losing a delivery; invalid settings change nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scene import Scene, gone, scene
from tests.support.service import until


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

"""The settings of a running process: since when, what a reload would change, and secrets that are not shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.settings_sources import SourceFiles
from worker.settings.in_force import ReloadPreview, SettingsInForce, preview

START = datetime(2026, 5, 17, tzinfo=UTC)
LATER = START + timedelta(hours=1)
LATEST = START + timedelta(hours=2)


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


def one(in_force: SettingsInForce, *key: str, then: ReloadPreview | None = None) -> dict[str, Any]:
    return in_force.one(key, then).to_json()


def test_a_value_is_in_force_since_the_start_or_since_the_reload_that_changed_it(sources: SourceFiles) -> None:
    sources.toml("[defaults]\nlanguage = 'fr'\n[instances.acme.tensorflow]\nconfidence_threshold = 0.3")
    in_force = SettingsInForce(sources.load(), START)
    sources.toml("[defaults]\nlanguage = 'fr'\n[instances.acme.tensorflow]\nconfidence_threshold = 0.4")
    in_force.adopt(sources.load(), LATER)
    changed = one(in_force, "instances", "acme", "tensorflow", "confidence_threshold")
    assert (changed["value"], changed["since"]) == (0.4, "2026-05-17T01:00:00+00:00")
    assert one(in_force, "instances", "acme", "language")["since"] == "2026-05-17T00:00:00+00:00"
    assert one(in_force, "defaults", "language")["since"] == "2026-05-17T00:00:00+00:00"


def test_an_inherited_value_is_as_old_as_the_defaults_or_as_the_removal_of_its_own(sources: SourceFiles) -> None:
    sources.toml("instances.acme.language = 'fr'")
    in_force = SettingsInForce(sources.load(), START)
    sources.toml("instances.acme.enabled = true")
    in_force.adopt(sources.load(), LATER)
    assert one(in_force, "instances", "acme", "language") | {"origin": ""} == {
        "value": "en",
        "origin": "",
        "since": "2026-05-17T01:00:00+00:00",
        "secret": False,
    }
    sources.toml("defaults.language = 'de'\ninstances.acme.enabled = true")
    in_force.adopt(sources.load(), LATEST)
    assert one(in_force, "instances", "acme", "language")["since"] == "2026-05-17T02:00:00+00:00"
    assert one(in_force, "instances", "nobody", "language")["value"] == "de"


def test_a_preview_says_what_a_reload_and_what_a_restart_would_change(sources: SourceFiles) -> None:
    in_force = SettingsInForce(sources.load(), START)
    sources.toml("http.port = 9999\n[instances.acme]\nlanguage = 'fr'\n[tensorflow]\nmaximum_number_of_relaunches = 9")
    then = preview(sources.load)
    changes = {each.key: (each.changes, each.next_value) for each in in_force.would_change(then)}
    assert changes == {
        ("http", "port"): ("restart", 9999),
        ("tensorflow", "maximum_number_of_relaunches"): ("reload", 9),
        ("instances", "acme", "language"): ("reload", "fr"),
    }
    in_force.adopt(sources.load(), LATER)
    still = one(in_force, "http", "port", then=then)
    assert (still["value"], still["changes_at"], still["next_value"]) == (9464, "restart", 9999)
    assert in_force.need_a_restart(sources.load()) == ["http"]


def test_a_value_that_is_taken_away_again_is_no_change(sources: SourceFiles) -> None:
    sources.toml("http.port = 9999")
    in_force = SettingsInForce(sources.load(), START)
    sources.toml("")
    in_force.adopt(sources.load(), LATER)
    assert [each.key for each in in_force.would_change(preview(sources.load))] == [("http", "port")]
    sources.toml("http.port = 9999")
    in_force.adopt(sources.load(), LATEST)
    assert not in_force.would_change(preview(sources.load))


def test_a_preview_of_broken_sources_says_why_a_reload_would_be_refused(sources: SourceFiles) -> None:
    in_force = SettingsInForce(sources.load(), START)
    sources.toml("amqp.prefetch = -1")
    then = preview(sources.load)
    assert "amqp.prefetch = -1" in str(then.refused)
    assert in_force.would_change(then) == []
    assert one(in_force, "amqp", "prefetch", then=then)["value"] == sources_default()


def sources_default() -> int:
    from worker.settings import Settings

    return Settings().amqp.prefetch


def test_of_a_secret_only_a_fingerprint_is_shown_that_is_no_oracle(sources: SourceFiles) -> None:
    sources.secret("defaults__google_cloud_vision__api_key", "AIza-secret")
    sources.secret("defaults__microsoft_vision__api_key", "AIza-secret")
    sources.toml("defaults.provider_secrets.mine.key = 'hidden-too'")
    in_force, another = SettingsInForce(sources.load(), START), SettingsInForce(sources.load(), START)
    google = ("defaults", "google_cloud_vision", "api_key")
    shown = json.dumps([each.to_json() for each in in_force.service()])
    assert "AIza-secret" not in shown
    assert "hidden-too" not in shown
    fingerprint = in_force.one(google).value
    assert len(fingerprint) == 6
    # Neither the same secret in another setting nor another process with the same settings shows the same
    assert in_force.one(("defaults", "microsoft_vision", "api_key")).value != fingerprint
    assert another.one(google).value != fingerprint
    assert in_force.one(google).value == fingerprint
    sources.secret("defaults__google_cloud_vision__api_key", "AIza-other")
    in_force.adopt(sources.load(), LATER)
    assert in_force.one(google).value != fingerprint
    assert in_force.one(("http", "token")).value is None

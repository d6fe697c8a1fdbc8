"""`autotag tag` says which switch keeps events from being tagged as it tags, and what to set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.forked_commands import run_all
from worker.cli.switched_off import switched_off
from worker.settings import Settings

LOCAL = {"tensorflow": {"enabled": True}}
GOOGLE = {"google_cloud_vision": {"enabled": True, "api_key": "k"}}


def lines(
    instance: str = "default", model: str | None = None, threshold: float | None = None, **tree: Any
) -> list[str]:
    return list(switched_off(Settings(**tree), instance, model=model, threshold=threshold))


def test_where_everything_is_on_nothing_is_said() -> None:
    assert lines(defaults=LOCAL) == []
    assert lines("acme", defaults=GOOGLE, instances={"acme": LOCAL}) == []


def test_without_any_settings_it_says_that_events_are_not_tagged_and_what_to_set() -> None:
    (line,) = lines()
    assert "the local model is switched off for default, and so is every other provider" in line
    assert "until you set `defaults.tensorflow.enabled = true`" in line
    assert "here it is asked all the same" in line


def test_an_instance_of_its_own_is_switched_on_in_its_own_table() -> None:
    (line,) = lines("acme.org", defaults=LOCAL, instances={"acme.org": {"tensorflow": {"enabled": False}}})
    assert '`instances."acme.org".tensorflow.enabled = true`' in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "switched off for default, and not asked; to switch it on, set `defaults.tensorflow.enabled = true`"),
        ({"threshold": 0.2}, "and not asked; --threshold has no effect;"),
        ({"model": "efficientnet-lite0"}, "switched off for default, and only asked here, by --model;"),
    ],
)
def test_beside_another_provider_the_local_model_is_not_asked(options: dict[str, Any], said: str) -> None:
    (line,) = lines(defaults=GOOGLE, **options)
    assert said in line


def test_the_other_switches_are_named_too() -> None:
    assert "until you set `enabled = true`" in lines(enabled=False, defaults=LOCAL)[0]
    (line,) = lines("acme", defaults=LOCAL, instances={"acme": {"enabled": False}})
    assert "acme is switched off" in line
    assert "`instances.acme.enabled = true`" in line
    assert [len(lines("acme", defaults=LOCAL, unknown_instances=each)) for each in ("defaults", "skip", "refuse")] == [
        *(0, 1, 1)
    ]
    assert "are refused" in lines("acme", defaults=LOCAL, unknown_instances="refuse")[0]


def test_the_command_says_it_on_standard_error_and_its_results_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (done,) = run_all([("tag", "--json", "empty")], tmp_path, {"PATH": "/bin:/usr/bin", "HOME": str(tmp_path)})
    assert done.output == ""
    assert done.errors.splitlines()[0].startswith("the local model is switched off for default")

"""Values derived from several settings: the limit on tags, and the digest that distinguishes results."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.settings import InstanceSettings, Settings, effective_maximum_number_of_tags, settings_digest
from worker.settings.effective import TABLES_WITHOUT_INFLUENCE, WITHOUT_INFLUENCE
from worker.settings.schema import INSTANCE, SettingKey, is_secret


@pytest.mark.parametrize(
    ("system", "instance", "effective"), [(0, 0, 0), (0, 7, 7), (5, 0, 5), (5, 3, 3), (5, 5, 5), (5, 7, 5)]
)
def test_the_limit_is_the_systems_unless_the_instances_is_lower(system: int, instance: int, effective: int) -> None:
    assert effective_maximum_number_of_tags(system, instance) == effective


@given(st.integers(0, 100), st.integers(0, 100))
def test_the_limit_is_the_least_of_those_that_are_set(system: int, instance: int) -> None:
    limits = [limit for limit in (system, instance) if limit]
    assert effective_maximum_number_of_tags(system, instance) == min(limits, default=0)


ANOTHER: dict[str, Any] = {
    "endpoint": "https://eu-vision.googleapis.com",
    "api_endpoint": "https://a.example.org",
    "language": "fr",
    "clean": "liferay",
    "near_duplicates.providers": ["a"],
    "tags": "labels",
    "rename": {"a": "b"},
    "drop": ["a"],
    "only": ["a"],
    "alias": {"a": "cat"},
    "parents": {"a": ["b"]},
    "thresholds": {"a": 0.5},
    "rules_file": "/a.toml",
    "users": ["a"],
    "exchanges": ["a"],
    "virtual_hosts": ["a"],
    "path_roots": ["/a"],
    "url_allowed_hosts": ["a"],
    "url_allowed_ports": [8080],
    "sites": {"a": False},
    "api_key": "another",
    "providers": {"mine": {"enabled": True}},
    "provider_secrets": {"mine": {"key": "another"}},
}


def changed(key: SettingKey) -> InstanceSettings:
    default = INSTANCE[key].get_default(call_default_factory=True)
    value = ANOTHER.get(".".join(key), ANOTHER.get(key[-1], not default if isinstance(default, bool) else 1))
    tree: Any = value
    for part in reversed(key):
        tree = {part: tree}
    return InstanceSettings(**tree)


@pytest.mark.parametrize("key", INSTANCE, ids=".".join)
def test_the_digest_changes_with_what_influences_a_result_and_with_nothing_else(key: SettingKey) -> None:
    settings = Settings()
    same = settings_digest(settings, changed(key)) == settings_digest(settings, InstanceSettings())
    assert same == (key[-1] in WITHOUT_INFLUENCE or key[0] in TABLES_WITHOUT_INFLUENCE)
    assert not is_secret(INSTANCE[key]) or same, "a secret goes into no digest"


def test_the_digest_follows_the_model_and_the_limit_that_holds() -> None:
    instance = InstanceSettings(maximum_number_of_tags_per_asset=3)
    plain = settings_digest(Settings(), instance)
    assert settings_digest(Settings(tensorflow={"model": "other"}), instance) != plain
    assert settings_digest(Settings(maximum_number_of_tags_per_asset=2), instance) != plain
    assert settings_digest(Settings(maximum_number_of_tags_per_asset=9), instance) == plain


def test_the_digest_follows_the_curves_of_the_model_in_use() -> None:
    curves = {"label": {"slope": 1, "offset": 0}, "parent": {"slope": 1, "offset": 0}}
    plain = settings_digest(Settings(), InstanceSettings())
    of_another = Settings(tensorflow={"calibration": {"efficientnet-lite0": curves}})
    own = Settings(tensorflow={"calibration": {"efficientnet-lite2": curves}})
    assert settings_digest(of_another, InstanceSettings()) == plain
    assert settings_digest(own, InstanceSettings()) != plain
    by_its_other_name = Settings(tensorflow={"calibration": {"nanodet-320": curves}})
    assert settings_digest(by_its_other_name, InstanceSettings()) != plain, "`nanodet` is one of the defaults"


def test_the_digest_is_the_same_in_every_process() -> None:
    assert settings_digest(Settings(), InstanceSettings()) == settings_digest(Settings(), InstanceSettings())
    assert len(settings_digest(Settings(), InstanceSettings())) == 16
    rename = [{"a": "b", "c": "d"}, {"c": "d", "a": "b"}]
    one, other = (settings_digest(Settings(), InstanceSettings(labels={"rename": each})) for each in rename)
    assert one == other

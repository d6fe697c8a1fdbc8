"""Virtual instances: overrides merged into the defaults field by field, and how an instance is found by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support.settings_sources import SourceFiles
from worker.messages.fields import InstanceName, is_instance_name
from worker.settings import InstanceSettings, InstanceTensorFlowSettings, Settings
from worker.settings.schema import INSTANCE, SettingKey

SOME_VALUES: dict[str, list[Any]] = {
    "endpoint": ["https://a.example.org", "https://b.example.org"],
    "api_endpoint": ["https://a.example.org/vision/v3.2", "https://b.example.org"],
    "language": ["en", "fr"],
    "clean": ["none", "liferay"],
    "tags": ["concepts", "labels"],
    "near_duplicates.providers": [[], ["a"]],
    "api_key": ["key-a", "key-b"],
    "sites": [{}, {"a": False}, {"b": True}],
    "rename": [{}, {"a": "b"}],
    "alias": [{}, {"a": "cat"}],
    "parents": [{}, {"a": ("b",)}],
    "thresholds": [{}, {"a": 0.5}],
    "rules_file": [Path("/a.toml"), Path("/b.toml")],
    "providers": [{}, {"mine": {"enabled": True}}],
    "provider_secrets": [{}, {"mine": {"key": "a"}}],
    "path_roots": [[], ["/a"]],
    "url_allowed_hosts": [[], ["a", "*.b:9000"]],
    "url_allowed_ports": [[], [8080]],
    **{name: [[], ["a"], ["b", "c"]] for name in ("drop", "only", "users", "exchanges", "virtual_hosts")},
}


def values_for(key: SettingKey) -> st.SearchStrategy[Any]:
    name = key[-1] if ".".join(key) not in SOME_VALUES else ".".join(key)
    if name in SOME_VALUES:
        return st.sampled_from(SOME_VALUES[name])
    annotation = INSTANCE[key].annotation
    if annotation is bool:
        return st.booleans()
    return st.sampled_from([1, 0.5] if "float" in str(annotation) else [1, 2, 3])


overrides = st.fixed_dictionaries({}, optional={key: values_for(key) for key in INSTANCE})


def as_tree(flat: dict[SettingKey, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*tables, name), value in flat.items():
        table = tree
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = value
    return tree


def field(instance: InstanceSettings, key: SettingKey) -> Any:
    value: Any = instance
    for part in key:
        value = getattr(value, part)
    return value


@given(defaults=overrides, acme=overrides)
def test_every_field_is_the_instances_own_or_else_the_defaults_or_else_the_codes(
    defaults: dict[SettingKey, Any], acme: dict[SettingKey, Any]
) -> None:
    settings = Settings(defaults=as_tree(defaults), instances={"acme": as_tree(acme), "plain": {}})
    expected = InstanceSettings(**as_tree({**defaults, **acme}))
    assert settings.instances["acme"] == expected
    assert settings.instances["plain"] == settings.defaults
    for key in INSTANCE:
        nearest = settings.defaults if key not in acme else expected
        assert field(settings.instances["acme"], key) == field(nearest, key)


def test_an_override_of_one_field_keeps_the_others_of_its_table() -> None:
    settings = Settings(
        defaults=InstanceSettings(tensorflow=InstanceTensorFlowSettings(enabled=True)),
        instances={"acme": {"tensorflow": {"confidence_threshold": 0.3}}},
    )
    assert settings.instances["acme"].tensorflow == InstanceTensorFlowSettings(enabled=True, confidence_threshold=0.3)


def test_a_list_and_a_map_are_replaced_as_a_whole() -> None:
    settings = Settings(
        defaults={"labels": {"drop": ["a"], "rename": {"a": "b"}}},
        instances={"acme": {"labels": {"drop": ["c"], "rename": {"c": "d"}}}},
    )
    assert settings.instances["acme"].labels.drop == ("c",)
    assert settings.instances["acme"].labels.rename == {"c": "d"}


def test_an_unknown_instance_gets_the_defaults_or_is_skipped() -> None:
    assert Settings().instance("nobody") == Settings().defaults
    assert Settings(unknown_instances="skip").instance("nobody") is None
    known = Settings(unknown_instances="skip", instances={"acme": InstanceSettings()})
    assert known.instance("acme") is not None
    assert known.instance("Acme") is None, "events spell a name exactly"


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


def test_variables_and_secrets_find_an_instance_without_regard_to_case_and_punctuation(sources: SourceFiles) -> None:
    sources.toml('[instances."Acme.Org"]\n[instances."Zurich-1"]\n[instances.a__b]')
    sources.secret("instances__acme.org__google_cloud_vision__api_key", "g")
    sources.secret("instances__ACME_ORG__microsoft_vision__api_key", "m")
    settings = sources.load(
        {
            "AUTOTAG_INSTANCES__ACME_ORG__TENSORFLOW__ENABLED": "yes",
            "AUTOTAG_INSTANCES__ZURICH_1__TENSORFLOW__ENABLED": "1",
            "AUTOTAG_INSTANCES__A__B__TENSORFLOW__ENABLED": "true",
        }
    ).settings
    assert set(settings.instances) == {"Acme.Org", "Zurich-1", "a__b"}
    assert all(instance.tensorflow.enabled for instance in settings.instances.values())
    assert settings.instances["Acme.Org"].google_cloud_vision.api_key == SecretStr("g")
    assert settings.instances["Acme.Org"].microsoft_vision.api_key == SecretStr("m")


def test_a_name_that_fits_exactly_but_for_case_wins_over_one_that_differs_in_punctuation(sources: SourceFiles) -> None:
    sources.toml('[instances."a.b"]\n[instances.a_b]')
    settings = sources.load({"AUTOTAG_INSTANCES__A_B__ENABLED": "false"}).settings
    assert (settings.instances["a_b"].enabled, settings.instances["a.b"].enabled) == (False, True)


def test_a_name_that_could_be_any_of_several_instances_is_refused(sources: SourceFiles) -> None:
    sources.toml("[instances.Acme]\n[instances.ACME]")
    complaint = sources.complaint({"AUTOTAG_INSTANCES__ACME__ENABLED": "false"})
    assert "its table could be any of ACME, Acme: set it in the TOML file" in complaint


def test_an_instance_may_be_known_by_its_variables_alone(sources: SourceFiles) -> None:
    settings = sources.load({"AUTOTAG_INSTANCES__ACME__TENSORFLOW__ENABLED": "true"}).settings
    assert settings.instances["acme"].tensorflow.enabled


def test_an_instance_knows_through_which_table_a_value_came(sources: SourceFiles) -> None:
    sources.toml(
        "[defaults.tensorflow]\nenabled = true\nconfidence_threshold = 0.2\n"
        "[instances.acme.tensorflow]\nconfidence_threshold = 0.3\n"
    )
    loaded = sources.load({"AUTOTAG_INSTANCES__ACME__PROVIDER_WAIT_S": "3"})
    origins = {each.key: each.origin for each in loaded.instance("acme")}
    file = f"file {sources.directory / 'autotag.toml'}"
    assert origins["tensorflow", "confidence_threshold"] == f"[instances.acme] {file}"
    assert origins["tensorflow", "enabled"] == f"[defaults] {file}"
    assert origins["provider_wait_s",] == "[instances.acme] environment AUTOTAG_INSTANCES__ACME__PROVIDER_WAIT_S"
    assert origins["enabled",] == "default"


def test_the_settings_take_exactly_the_names_of_instances_that_events_may_use(sources: SourceFiles) -> None:
    _, field = get_args(InstanceName)
    patterns = [each.pattern for each in field.metadata if hasattr(each, "pattern")]
    longest = [each.max_length for each in field.metadata if hasattr(each, "max_length")]
    assert (patterns, longest) == (["^[A-Za-z0-9][A-Za-z0-9._-]*$"], [100])
    for name, taken in {"acme": True, "acme.org": True, "a" * 100: True, "acme corp": False, "a" * 101: False}.items():
        assert is_instance_name(name) == taken
        sources.toml(f'[instances."{name}"]')
        if taken:
            assert set(sources.load().settings.instances) == {name}
        else:
            assert f"no event can name the instance {name!r}" in sources.complaint()


def test_an_instance_may_have_roots_hosts_and_ports_of_its_own_and_else_those_of_all() -> None:
    settings = Settings.model_validate(
        {
            "sources": {"path_roots": ["/all"], "url_allowed_hosts": ["all"], "maximum_bytes": 7},
            "instances": {"own": {"sources": {"path_roots": ["/own"]}}, "none": {"sources": {"url_allowed_hosts": []}}},
        }
    )
    own, none, other = (
        settings.sources_of(settings.instance(name) or settings.defaults) for name in ("own", "none", "x")
    )
    assert (own.path_roots, own.url_allowed_hosts, own.maximum_bytes) == ((Path("/own"),), ("all",), 7)
    assert (none.path_roots, none.url_allowed_hosts) == ((Path("/all"),), ())
    assert other is settings.sources

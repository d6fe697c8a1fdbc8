"""Providers are found by name: the built-in ones, and those of other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from worker.errors import Misconfigured
from worker.providers import registry
from worker.providers.checks import Checkable
from worker.providers.registry import ProviderContext, enabled_names, make, make_enabled
from worker.settings import Settings

HERE = "tests.unit.providers.test_registry"


class Complete:
    """Has all methods of a provider, and the name `complete`."""

    name = "complete"

    def __init__(self, context: ProviderContext) -> None:
        self.context = context

    def enabled(self) -> None: ...
    def pixel_recipe(self) -> None: ...
    def refuses(self) -> None: ...
    def unusable(self) -> None: ...
    def tag(self) -> None: ...
    def start(self) -> None: ...
    def close(self) -> None: ...


class Incomplete:
    name = "incomplete"

    def __init__(self, context: ProviderContext) -> None: ...


def failing_factory(context: ProviderContext) -> None:
    raise RuntimeError("no luck today")


@pytest.fixture
def context(tmp_path: Path) -> ProviderContext:
    return ProviderContext(Settings.model_validate({"cache_dir": tmp_path / "c", "state_dir": tmp_path / "s"}))


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Entry points of other packages, by name."""
    installed: dict[str, str] = {}

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in installed.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return installed


def test_only_providers_that_an_instance_has_enabled_are_created(tmp_path: Path, packages: dict[str, str]) -> None:
    on = {"enabled": True, "api_key": "k", "api_endpoint": "https://x.example"}
    settings = Settings.model_validate(
        {"state_dir": tmp_path, "cache_dir": tmp_path, "instances": {"acme": {"microsoft_vision": on}}}
    )
    (provider,) = make_enabled(settings)
    assert provider.name == "microsoft_vision"
    assert isinstance(provider, Checkable)
    assert enabled_names(Settings()) == []


def test_the_cloud_providers_can_be_created_and_checked(context: ProviderContext, packages: dict[str, str]) -> None:
    assert all(isinstance(make(name, context), Checkable) for name in registry.BUILT_IN)


def test_a_third_party_provider_is_created_with_its_context(context: ProviderContext, packages: dict[str, str]) -> None:
    packages["complete"] = f"{HERE}:Complete"
    provider = make("complete", context)
    assert provider.context is context  # type: ignore[attr-defined]
    assert registry.names() == ["complete", "google_cloud_vision", "microsoft_vision"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gone", "no_such_package:Provider", "ModuleNotFoundError"),
        ("gone", f"{HERE}:Nothing", "AttributeError"),
        ("failing", f"{HERE}:failing_factory", "no luck today"),
        ("incomplete", f"{HERE}:Incomplete", "lacks enabled"),
        ("another", f"{HERE}:Complete", "calls itself 'complete'"),
    ],
)
def test_one_that_does_not_work_is_reported_and_does_not_affect_the_others(
    context: ProviderContext, packages: dict[str, str], name: str, value: str, message: str
) -> None:
    packages |= {name: value, "complete": f"{HERE}:Complete"}
    with pytest.raises(Misconfigured, match=message) as caught:
        make(name, context)
    assert caught.value.reason == "provider_broken"
    assert [provider.name for provider in make_enabled(context.settings)] == ["complete"]


@pytest.mark.parametrize("name", ["google_cloud_vision", "tensorflow"])
def test_the_name_of_a_built_in_provider_is_reserved(
    context: ProviderContext, packages: dict[str, str], name: str
) -> None:
    packages[name] = f"{HERE}:Complete"
    assert registry.installed() == {}


def test_an_unknown_name_is_reported_with_the_known_ones(context: ProviderContext, packages: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match="google_cloud_vision, microsoft_vision"):
        make("bing", context)

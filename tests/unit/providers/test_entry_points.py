"""How the command line treats a third-party provider."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from tests.support.scripted_provider import ScriptedProvider
from worker.cli.explaining import settings_for
from worker.diagnostics import preflight
from worker.providers import registry
from worker.providers.registry import ProviderContext
from worker.settings import InstanceSettings, Settings


class Mine(ScriptedProvider):
    def __init__(self, _context: ProviderContext) -> None:
        super().__init__("mine")

    def enabled(self, instance: InstanceSettings) -> bool:
        return "mine" in instance.providers


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", f"{__name__}:Mine", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])


ON = Settings(instances={"acme": {"providers": {"mine": {}}}})


async def test_the_check_of_the_switches_lists_it() -> None:
    check = await preflight._switches(ON)
    assert (check.status, check.message) == ("ok", "defaults: none; acme: mine")


@pytest.mark.parametrize(("instance", "local"), [("acme", False), ("unknown", True)])
def test_the_local_model_tags_a_file_only_where_no_other_provider_would(instance: str, local: bool) -> None:
    settings = settings_for(ON, instance, model=None, threshold=None)
    assert settings.instances[instance].tensorflow.enabled == local

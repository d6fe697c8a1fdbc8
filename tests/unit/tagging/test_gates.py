"""The gates, in the original's order; each that is shut says why."""

from __future__ import annotations

import pytest

from tests.support.scripted_provider import ScriptedProvider
from worker.messages import Event, read_event
from worker.settings import InstanceSettings, Settings
from worker.tagging.gates import gate

ON = ScriptedProvider("on")
OFF = ScriptedProvider("off", enabled=False)


def event(**data: object) -> Event:
    import json

    body = {"asset_id": "a-1", "content": {"path": "a.jpg"}} | data
    return read_event(json.dumps(body).encode(), "application/json", {}, "message-1").event


def reason(
    event: Event, settings: Settings, instance: InstanceSettings | None, *providers: ScriptedProvider
) -> str | None:
    skip = gate(event, settings, instance, providers)
    return None if skip is None else skip.reason


def test_the_way_is_free_when_everything_is_on() -> None:
    assert reason(event(), Settings(), InstanceSettings(), OFF, ON) is None


@pytest.mark.parametrize(
    ("settings", "instance", "data", "expected"),
    [
        (Settings(enabled=False), InstanceSettings(), {}, "system_disabled"),
        (Settings(), None, {}, "unknown_instance"),
        (Settings(), InstanceSettings(enabled=False), {}, "instance_disabled"),
        (Settings(), InstanceSettings(sites={"intranet": False}), {"site": "intranet"}, "site_disabled"),
        (Settings(), InstanceSettings(sites={"intranet": False}), {"site": "public"}, None),
        (Settings(), InstanceSettings(), {"temporary": True}, "temporary"),
        (Settings(), InstanceSettings(), {"existing_tags": ["mine"]}, "has_tags"),
        (Settings(), InstanceSettings(tag_assets_that_have_tags=True), {"existing_tags": ["mine"]}, None),
    ],
)
def test_each_gate_that_is_shut_names_its_reason(
    settings: Settings, instance: InstanceSettings | None, data: dict[str, object], expected: str | None
) -> None:
    assert reason(event(**data), settings, instance, ON) == expected


def test_with_every_provider_off_which_is_the_default_nothing_is_looked_at() -> None:
    assert reason(event(), Settings(), InstanceSettings(), OFF) == "no_provider_enabled"
    assert reason(event(), Settings(), InstanceSettings()) == "no_provider_enabled"


def test_the_systems_switch_comes_before_every_other_reason() -> None:
    everything_shut = event(temporary=True, existing_tags=["mine"])
    assert reason(everything_shut, Settings(enabled=False), InstanceSettings(enabled=False), OFF) == "system_disabled"

"""When no provider could answer an event, it must wait in its queue: the active engine knows when that is so."""

from __future__ import annotations

import pytest

from tests.support.scripted_provider import ScriptedProvider
from worker.engine import Active, Engine
from worker.operations.metrics import Metrics
from worker.settings import InstanceSettings, Settings
from worker.supervision.decoder_pool import DecoderPool


class OnFor(ScriptedProvider):
    """A provider that some instances have switched on, by their limit on tags, and that is unusable or not."""

    def __init__(self, name: str, limit: int, unusable: str | None) -> None:
        super().__init__(name)
        self._limit, self._unusable = limit, unusable

    def enabled(self, instance: InstanceSettings) -> bool:
        return instance.maximum_number_of_tags_per_asset == self._limit

    def unusable(self, instance: InstanceSettings) -> str | None:
        return self._unusable


class Stub(ScriptedProvider):
    """An enabled provider that is unusable for the given reason, or usable."""

    def __init__(self, unusable: str | None) -> None:
        super().__init__("stub")
        self._unusable = unusable

    def unusable(self, instance: InstanceSettings) -> str | None:
        return self._unusable


def why(*unusable: str | None) -> str | None:
    settings = Settings()
    engine = Engine(settings, None, Metrics())
    engine.providers = tuple(Stub(each) for each in unusable)
    return Active(settings, engine).why_nothing_can_be_tagged()


def test_one_usable_provider_is_enough() -> None:
    assert why("disabled", None) is None


def test_with_none_usable_it_says_why() -> None:
    assert why("the model is disabled", "its key was refused") == "the model is disabled"


def test_with_none_switched_on_there_is_none_that_could_not_answer() -> None:
    assert why() is None


@pytest.mark.parametrize(
    ("tree", "waits"),
    [
        ({}, True),
        ({"unknown_instances": "refuse", "instances": {"acme": {}}}, True),
        ({"defaults": {"enabled": False}, "instances": {"acme": {"enabled": True}}}, True),
        ({"while_nothing_is_switched_on": "skip"}, False),
        ({"enabled": False}, False),
        ({"defaults": {"enabled": False}}, False),
        ({"defaults": {"tensorflow": {"enabled": True}}}, False),
        ({"instances": {"acme": {"microsoft_vision": {"enabled": True}}}}, False),
        ({"instances": {"acme": {"enabled": False, "tensorflow": {"enabled": True}}}}, False),
    ],
    ids=[
        "nothing is set",
        "an instance without a provider",
        "the defaults are off, and an instance has no provider",
        "events are to be skipped",
        "the system is off",
        "all instances are off",
        "the local model is on",
        "a service is on for one instance",
        "the only instance with a provider is off",
    ],
)
def test_events_wait_while_nothing_is_switched_on_anywhere(tree: dict[str, object], waits: bool) -> None:
    settings = Settings.model_validate(tree)
    assert Active(settings, Engine(settings, None, Metrics())).waits_for_a_switch is waits


def test_a_provider_of_another_package_that_is_on_counts() -> None:
    settings = Settings()
    engine = Engine(settings, None, Metrics())
    engine.providers = (Stub("its key was refused"),)
    assert not Active(settings, engine).waits_for_a_switch


def test_without_decoders_no_provider_sees_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DecoderPool, "disabled_reason", "the sandbox is too weak")
    assert why(None) == "no decoder can start: the sandbox is too weak"
    assert why() is None


def active(settings: Settings, *providers: ScriptedProvider) -> Active:
    engine = Engine(Settings(), None, Metrics())
    engine.providers = providers
    return Active(settings, engine)


TENANTS = {"local": {"maximum_number_of_tags_per_asset": 1}, "cloud": {"maximum_number_of_tags_per_asset": 2}}


def test_an_instance_none_of_whose_providers_can_answer_is_named() -> None:
    it = active(
        Settings.model_validate({"instances": TENANTS}),
        OnFor("model", 1, "the model is disabled"),
        OnFor("service", 2, None),
    )
    assert it.lacking() == {"local": "the model is disabled"}
    assert it.why_nothing_can_be_tagged() is None


CLOUD = {"google_cloud_vision": {"enabled": True}, "microsoft_vision": {"enabled": False}}


def test_a_service_that_is_switched_on_or_off_leaves_the_others_what_they_remember() -> None:
    metrics = Metrics()
    google = Settings.model_validate({"instances": {"acme": CLOUD}})
    both = Settings.model_validate({"instances": {"acme": CLOUD | {"microsoft_vision": {"enabled": True}}}})
    # When Microsoft is switched on
    first = Engine(google, None, metrics)
    second = Engine(both, None, metrics, beside=first)
    assert [each.name for each in second.providers] == ["google_cloud_vision", "microsoft_vision"]
    assert second.providers[0] is first.providers[0]
    assert first.providers[0] not in second._owned
    assert second.providers[1] in second._owned
    # And off again
    second.take_over()
    third = Engine(google, None, metrics, beside=second)
    third.take_over()
    assert third.providers == first.providers
    # Then the engine that ends closes only what is not used any more
    assert second._owned == [second.providers[1]]
    # While other settings of the calls need another client
    other = Settings.model_validate({"instances": {"acme": CLOUD}, "cloud": {"circuit_open_s": 3}})
    assert Engine(other, None, metrics, beside=third).providers[0] is not third.providers[0]


@pytest.mark.parametrize(
    "without",
    [
        {"instances": {"local": TENANTS["local"], "cloud": TENANTS["cloud"] | {"enabled": False}}},
        {
            "instances": {"local": TENANTS["local"]},
            "defaults": TENANTS["cloud"],
            "unknown_instances": "skip",
        },
    ],
    ids=["an instance that is switched off", "defaults that no event can meet"],
)
def test_what_no_event_can_meet_does_not_count_as_somebody_who_can_tag(without: dict[str, object]) -> None:
    # Given a provider that could answer only under settings that no event is tagged under
    it = active(Settings.model_validate(without), OnFor("model", 1, "the model is disabled"), OnFor("service", 2, None))
    # Then nobody can tag
    assert it.why_nothing_can_be_tagged() == "the model is disabled"

"""A third-party provider that raises where it must not loses only its own tags."""

from __future__ import annotations

from structlog.testing import capture_logs

from tests.support.scripted_provider import ScriptedProvider
from worker.errors import TryLater
from worker.providers.third_party import ThirdPartyProvider
from worker.settings import InstanceSettings


class Broken(ScriptedProvider):
    def enabled(self, instance: InstanceSettings) -> bool:
        raise KeyError("a setting of mine")

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        raise RuntimeError("no idea")

    def unusable(self, instance: InstanceSettings) -> str | None:
        raise RuntimeError("no idea")

    def calls_used(self) -> int:
        return 7


def test_what_it_raises_is_logged_once_and_it_counts_as_enabled_and_usable() -> None:
    wrapped = ThirdPartyProvider(Broken("mine"))
    with capture_logs() as lines:
        answers = [
            (wrapped.enabled(InstanceSettings()), wrapped.refuses("image/png", InstanceSettings())) for _ in range(3)
        ]
    assert answers == [(True, None)] * 3
    assert [(line["provider"], line["method"]) for line in lines] == [("mine", "enabled"), ("mine", "refuses")]
    assert wrapped.unusable(InstanceSettings()) is None


def test_a_correct_one_is_delegated_to_with_its_optional_methods() -> None:
    wrapped = ThirdPartyProvider(Broken("mine"))
    assert wrapped.name == "mine"
    assert wrapped.calls_used() == 7
    off = ThirdPartyProvider(ScriptedProvider("off", enabled=False, refuses=lambda _mime_type: "not mine"))
    assert not off.enabled(InstanceSettings())
    assert off.refuses("image/png", InstanceSettings()) == "not mine"


def test_one_that_knows_of_limits_of_its_own_is_asked_beforehand_and_any_other_can_be_asked() -> None:
    waiting = TryLater("not its turn", reason="rate_limit", counted=False)

    class Limited(ScriptedProvider):
        def why_wait(self, asset_id: str, instance_name: str, instance: InstanceSettings) -> TryLater | None:
            if instance_name == "broken":
                raise RuntimeError("a bug")
            return waiting

    limited = ThirdPartyProvider(Limited("limited"))
    assert limited.why_wait("asset", "acme", InstanceSettings()) is waiting
    assert limited.why_wait("asset", "broken", InstanceSettings()) is None
    assert ThirdPartyProvider(ScriptedProvider("simple")).why_wait("asset", "acme", InstanceSettings()) is None

"""When no provider could answer an event, it must wait in its queue: the active engine knows when that is so."""

from __future__ import annotations

import pytest

from tests.support.scripted_provider import ScriptedProvider
from worker.engine import Active, Engine
from worker.operations.metrics import Metrics
from worker.settings import InstanceSettings, Settings
from worker.supervision.decoder_pool import DecoderPool


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


def test_with_none_switched_on_events_are_answered_as_skipped_and_do_not_wait() -> None:
    assert why() is None


def test_without_decoders_no_provider_sees_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DecoderPool, "disabled_reason", "the sandbox is too weak")
    assert why(None) == "no decoder can start: the sandbox is too weak"
    assert why() is None

"""When nobody could answer an event, it must wait in its queue: the engine tells when that is so."""

from __future__ import annotations

from typing import Any

import pytest

from worker.engine import Active, Engine
from worker.operations.metrics import Metrics
from worker.settings import Settings
from worker.supervision.decoder_pool import DecoderPool


class Stub:
    """A provider that is switched on, and as well as it is told to be."""

    name = "stub"

    def __init__(self, unusable: str | None) -> None:
        self._unusable = unusable

    def enabled(self, _instance: Any) -> bool:
        return True

    def unusable(self, _instance: Any) -> str | None:
        return self._unusable


def why(*unusable: str | None) -> str | None:
    settings = Settings()
    engine = Engine(settings, None, Metrics())
    engine.providers = tuple(Stub(each) for each in unusable)  # type: ignore[assignment]
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

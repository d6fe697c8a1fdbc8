"""Settings that are reloaded: while the first engine is still being opened, and when a provider fails meanwhile."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.support.polling import eventually
from worker import service as service_module
from worker.engine import Active, Engine
from worker.service import Service
from worker.settings import LoadedSettings, Settings

LOCAL: dict[str, Any] = {"defaults": {"tensorflow": {"enabled": True}}}


class Opened:
    """What stands for an engine."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closed = False

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("reloaded", "times"),
    [(Settings(**LOCAL), 2), (Settings(maximum_number_of_tags_per_asset=3), 1)],
    ids=["another engine is needed", "the same will do"],
)
async def test_the_engine_that_is_used_fits_the_settings_that_hold(
    monkeypatch: pytest.MonkeyPatch, reloaded: Settings, times: int
) -> None:
    opened: list[Opened] = []
    service = Service(LoadedSettings(Settings(), {}, None), lambda **_: LoadedSettings(Settings(), {}, None))

    async def open_engine(settings: Settings, *_: object) -> Opened:
        opened.append(Opened(settings))
        service._starting_with = reloaded
        return opened[-1]

    monkeypatch.setattr(service_module, "open_engine", open_engine)

    engine: object = await service._first_engine()  # an Opened takes its place

    assert engine is opened[-1]
    assert [each.closed for each in opened] == [True] * (times - 1) + [False]


class Reviewed:
    """An engine with a provider whose review of the settings fails."""

    def __init__(self, raises: bool) -> None:
        self.raises = raises
        self.closed = False
        self.providers = (self,)
        self.name = "reviewed"

    def enabled(self, _instance: object) -> bool:
        return True

    def unusable(self, _instance: object) -> None: ...

    def review(self, _name: str, _instance: object) -> list[object]:
        if self.raises:
            raise RuntimeError("a fault of the provider's")
        return []

    async def check(self, _name: str, _instance: object) -> list[object]:
        return []

    async def close(self) -> None:
        self.closed = True


async def test_the_old_engine_is_closed_also_where_a_provider_fails_at_the_review(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new_settings = Settings.model_validate(LOCAL)
    service = Service(LoadedSettings(Settings(), {}, None), lambda **_: LoadedSettings(new_settings, {}, None))
    old, new = Reviewed(raises=False), Reviewed(raises=True)
    service.active = Active(Settings(), cast("Engine", old))

    async def open_engine(*_: object) -> Reviewed:
        return new

    monkeypatch.setattr(service_module, "open_engine", open_engine)
    monkeypatch.setattr(service._monitor, "use", lambda _active: None)
    with pytest.raises(RuntimeError, match="a fault of the provider"):
        await service._reload()
    await eventually(lambda: old.closed, "the old engine is closed")
    assert service.active.engine is cast("Engine", new)

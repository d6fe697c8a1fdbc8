"""Settings that are reloaded while the service is still opening, as when its first model takes minutes to build."""

from __future__ import annotations

from typing import Any

import pytest

from worker import service as service_module
from worker.service import Service
from worker.settings import Settings

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
    service = Service(Settings(), Settings)

    async def open_engine(settings: Settings, *_: object) -> Opened:
        opened.append(Opened(settings))
        service._starting_with = reloaded
        return opened[-1]

    monkeypatch.setattr(service_module, "open_engine", open_engine)

    engine: object = await service._first_engine()  # an Opened takes its place

    assert engine is opened[-1]
    assert [each.closed for each in opened] == [True] * (times - 1) + [False]

"""An engine made beside another: parts whose settings are the same are used on, with all that they remember."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import manifest
from worker.engine import Engine
from worker.models.labels import Label
from worker.models.manifest import ModelPackage
from worker.models.selection import LocalModels
from worker.operations.metrics import Metrics
from worker.settings import Settings
from worker.supervision.pool import Pool

ON: dict[str, Any] = {
    "defaults": {"tensorflow": {"enabled": True}},
    "instances": {"a": {"google_cloud_vision": {"enabled": True, "api_key": "k"}}},
}


class Closed:
    """Records which parts are started and closed, in place of doing it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[object] = []
        self.closed: list[object] = []
        self._monkeypatch = monkeypatch

    def watch(self, engine: Engine) -> Engine:
        for part in engine._parts:
            self._replace(part, "start", self.started)
            self._replace(part, "close", self.closed)
        return engine

    def _replace(self, part: object, name: str, record: list[object]) -> None:
        async def called() -> None:
            record.append(part)

        self._monkeypatch.setattr(part, name, called)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Closed:
    return Closed(monkeypatch)


@pytest.fixture
async def metrics() -> Metrics:
    return Metrics()


def models(directory: Path = Path("/nothing")) -> LocalModels:
    """What an engine asks of a model package; there are no files."""
    package = ModelPackage(directory, manifest())
    package.__dict__["described_labels"] = (Label("one"),)
    return LocalModels((package,))


def settings(**changed: Any) -> Settings:
    return Settings.model_validate(ON | changed)


def beside(old: Engine, new: Settings, metrics: Metrics) -> Engine:
    """An engine for new settings, as `open_engine` makes it."""
    return Engine(new, old.models_for(new) or models(), metrics, beside=old)


@pytest.mark.parametrize(
    ("changed", "new_parts"),
    [
        ({"cloud": {"maximum_connections": 9}}, {"cloud"}),
        ({"sources": {"concurrency": 3}}, {"sources"}),
        ({"sources": {"maximum_bytes": 1 << 20}}, {"sources", "decoders"}),
        ({"decoder": {"children": 3}}, {"decoders"}),
        ({"tensorflow": {"batch_size": 4}}, {"model"}),
        ({"defaults": {"tensorflow": {"enabled": True}, "microsoft_vision": {"enabled": True}}}, {"cloud"}),
    ],
)
async def test_a_part_is_new_only_where_its_own_settings_have_changed(
    changed: dict[str, Any], new_parts: set[str], metrics: Metrics
) -> None:
    old = Engine(settings(), models(), metrics)
    new = beside(old, settings(**changed), metrics)
    parts: dict[str, tuple[object, object]] = {
        "sources": (old.sources, new.sources),
        "decoders": (old.decoders, new.decoders),
        "model": (old.model, new.model),
        "cloud": (old._others, new._others),
    }
    assert {name for name, (before, after) in parts.items() if before != after} == new_parts
    assert (new.providers[0] is old.providers[0]) == ("model" not in new_parts)


async def test_only_new_parts_are_started_and_the_old_engine_ends_only_what_is_used_no_more(
    closed: Closed, metrics: Metrics
) -> None:
    old = closed.watch(Engine(settings(), models(), metrics))
    new = closed.watch(beside(old, settings(decoder={"children": 3}), metrics))
    await new.start()
    assert closed.started == [new.decoders]
    new.take_over()
    await old.close()
    assert closed.closed == [old.decoders]
    await new.close()
    assert set(closed.closed) == {old.decoders, *new._parts}


async def test_an_engine_that_does_not_take_over_ends_only_what_is_its_own(closed: Closed, metrics: Metrics) -> None:
    old = closed.watch(Engine(settings(), models(), metrics))
    new = closed.watch(beside(old, settings(tensorflow={"batch_size": 4}), metrics))
    await new.close()
    assert closed.closed == [new.providers[0]]
    await old.close()
    assert set(closed.closed) == {new.providers[0], *old._parts}


async def test_parts_are_handed_on_from_engine_to_engine_and_ended_once(closed: Closed, metrics: Metrics) -> None:
    first = closed.watch(Engine(settings(), models(), metrics))
    second = closed.watch(beside(first, settings(cloud={"maximum_connections": 9}), metrics))
    second.take_over()
    third = closed.watch(
        beside(second, settings(cloud={"maximum_connections": 9}, tensorflow={"batch_size": 4}), metrics)
    )
    third.take_over()
    for engine in (first, second, third):
        await engine.close()
    every = {part for engine in (first, second, third) for part in engine._parts}
    assert set(closed.closed) == every
    assert len(closed.closed) == len(every)


async def test_the_model_that_goes_on_minds_the_decoders_that_are_at_work_now(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Engine(settings(), models(), metrics)
    old.take_over()
    new = beside(old, settings(decoder={"children": 3}), metrics)
    new.take_over()
    assert new.model is not None
    assert not new.model.others_at_work()
    monkeypatch.setattr(Pool, "at_work", property(lambda pool: pool is new.decoders))
    assert new.model.others_at_work()


async def test_one_part_that_fails_to_end_does_not_keep_the_others_from_it(
    closed: Closed, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails() -> None:
        raise RuntimeError("a fault of the provider's")

    engine = closed.watch(Engine(settings(), models(), metrics))
    monkeypatch.setattr(engine.providers[-1], "close", fails)
    with pytest.raises(RuntimeError, match="a fault of the provider"):
        await engine.close()
    assert set(closed.closed) == set(engine._parts) - {engine.providers[-1]}

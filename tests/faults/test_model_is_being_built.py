"""SIGTERM while the service still builds its model, or waits for another process that builds it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.polling import until
from tests.support.processes import running
from tests.support.scene import QUICK
from tests.support.service import RunningService, running_service

GRACE_S = 8.0  # a busy machine takes its time beyond that, for ending the process


@pytest.fixture
def building(broker: str, queue_prefix: str, tmp_path: Path) -> Iterator[RunningService]:
    """A service with an empty cache, whose builder is running."""
    settings = QUICK | {"SHUTDOWN_GRACE_S": str(GRACE_S), "CACHE_DIR": str(tmp_path / "cache")}
    with running_service(broker, queue_prefix, tmp_path / "first", **settings) as service:
        until(lambda: builders(tmp_path), "the builder runs")
        yield service


def builders(cache: Path) -> list[psutil.Process]:
    """The processes that build a model into this cache."""
    return running(lambda words: "worker.models.builder" in words and words[-1].startswith(str(cache)))


def test_it_ends_in_time_and_the_builder_with_it(building: RunningService, tmp_path: Path) -> None:
    time.sleep(1)  # so that the builder is in its long step without output
    assert builders(tmp_path)
    assert building.stop(within_s=2 * GRACE_S) == 0, building.logged()
    assert builders(tmp_path) == []


def test_it_ends_in_time_while_another_one_builds(
    building: RunningService, broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    settings = QUICK | {"SHUTDOWN_GRACE_S": str(GRACE_S), "CACHE_DIR": str(tmp_path / "cache")}
    with running_service(broker, queue_prefix, tmp_path / "second", **settings) as second:
        until(lambda: "waiting for another process that makes the same model" in second.logged(), "it waits")
        assert len(builders(tmp_path)) == 1
        assert second.stop(within_s=2 * GRACE_S) == 0, second.logged()
    assert building.stop(within_s=2 * GRACE_S) == 0
    assert builders(tmp_path) == []

"""The canary: a known picture takes the whole way at start and every so often; what is wrong with a model shows."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest

from tests.support.models import built, picture, score_elsewhere, with_other_labels
from tests.support.monitoring import fetch, http_url, total, value
from tests.support.polling import eventually, until
from tests.support.service import Dms, RunningService, running_service
from worker.engine import Active, open_engine
from worker.errors import Misconfigured
from worker.models.catalogue import BUILT_IN, find_package
from worker.models.manifest import ModelPackage
from worker.operations.health.canary import Canary
from worker.operations.metrics import Metrics
from worker.providers.base import TENSORFLOW
from worker.settings import InstanceSettings, Settings, TensorFlowSettings
from worker.tagging.canary.expected import BANDS, judge, known_tag
from worker.tagging.confidences import LEAST_SCORE, Meanings
from worker.tagging.merge import Choice, Verdict


@pytest.mark.parametrize("name", BANDS)
def test_every_model_that_is_built_here_says_what_is_expected_and_not_only_just(name: str, tmp_path: Path) -> None:
    # Given a model, built if it is one that tests use anyway
    try:
        package = built(name) if name in BUILT_IN and "float" not in name else find_package(name, Settings().cache_dir)
    except Misconfigured as error:
        pytest.skip(f"it is not built here: {error}")
    # When it scores the picture
    with as_file(files("worker.tagging.canary") / "picture.jpg") as file:
        pixels = picture(file, package.manifest.recipe())
    [row] = score_elsewhere(package, pixels[None], tmp_path)["scores"]
    scores = [(index, float(score)) for index, score in enumerate(row) if score >= LEAST_SCORE]
    meant = Meanings(package.described_labels, package.manifest).confidences(scores, 0.05)
    choices = [
        Choice(each.name, each.name, each.value, TENSORFLOW, Verdict.KEPT, each.concept, models=each.models)
        for each in meant
    ]
    # Then its confidence is in the inner three quarters of the band
    expected = known_tag(package)
    assert expected is not None
    finding = judge(choices, package.manifest.name, expected)
    margin = (expected.high - expected.low) / 8
    assert expected.low + margin < finding.value < expected.high - margin, finding


@contextmanager
def service_with(broker: str, prefix: str, folder: Path, **settings: str) -> Iterator[RunningService]:
    chosen = {"CANARY__ENABLED": "true", "CANARY__INTERVAL_S": "10", **settings}
    with running_service(broker, prefix, folder, **chosen) as service:
        yield service.ready(within_s=120)


def canary_of(service: RunningService) -> Mapping[str, Any]:
    """The last canary in the service's status."""

    def last() -> Mapping[str, Any] | None:
        return (service.status() or {}).get("canary")

    return until(last, f"there was a canary; log: {service.logged()[-3000:]}")


def wait_for_another(service: RunningService) -> None:
    """Wait until one has begun and ended after this moment."""
    until(lambda: canary_of(service)["ago_s"] > 3, "the last one is over for a while")
    until(lambda: canary_of(service)["ago_s"] < 3, "there was another one", within_s=60)


def metrics_of(service: RunningService) -> str:
    return fetch(f"{http_url(service)}/metrics").body


def test_a_model_that_works_is_as_expected_at_start_and_no_event_is_counted_for_it(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    # Given a service that has just started, and no event
    with service_with(broker, queue_prefix, tmp_path) as service:
        first = canary_of(service)
        # Then the model has said what it should
        assert first["fault"] is None, first
        [model] = first["models"]
        assert (model["name"], model["expected"], model["fault"]) == ("efficientnet-lite0", "cat", None)
        assert model["low"] <= model["confidence"] <= model["high"]
        # And the metrics say so, without any event, result or reply
        text = metrics_of(service)
        assert value(text, "autotag_canary_ok", model="efficientnet-lite0") == 1
        assert value(text, "autotag_canary_confidence", model="efficientnet-lite0") == pytest.approx(
            model["confidence"], abs=1e-4
        )
        assert value(text, "autotag_canary_duration_seconds") > 0
        assert total(text, "autotag_canary_failures_total") == 0
        assert total(text, "autotag_events_received_total") == total(text, "autotag_results_total") == 0
        assert total(text, "autotag_provider_replies_total") == 0
        dms = Dms(broker, queue_prefix)
        assert dms.depth("results") == 0
        dms.close()
        # And the commands and the page show it
        assert "known picture" in service.autotag("status").stdout
        assert "as expected" in fetch(http_url(service)).body
        # And there is another one after the interval
        wait_for_another(service)
        assert canary_of(service)["fault"] is None
        assert service.stop() == 0


def test_labels_in_another_order_are_a_wrong_tag(broker: str, queue_prefix: str, tmp_path: Path) -> None:
    # Given a package of a built-in model whose labels are in the wrong order
    package = with_other_labels(built("efficientnet-lite0"), tmp_path / "package")
    settings = {"TENSORFLOW__MODEL": str(package), "CANARY__INTERVAL_S": "600"}  # what is counted below is one canary
    with service_with(broker, queue_prefix, tmp_path / "run", **settings) as service:
        # When it has seen the picture
        last = canary_of(service)
        # Then the tag is wrong, in the status, the metrics, the log, and on the page; the service stays ready
        assert last["fault"] == "wrong_tag"
        text = metrics_of(service)
        assert value(text, "autotag_canary_ok", model="efficientnet-lite0") == 0
        assert value(text, "autotag_canary_failures_total", reason="wrong_tag") == 1
        lines = [json.loads(line) for line in service.logged().splitlines() if line.startswith("{")]
        [logged] = [line for line in lines if line["event"] == "the canary is wrong"]
        assert (logged["level"], logged["reason"]) == ("warning", "wrong_tag")
        assert "cat from 0.9" in logged["expected"]
        assert "Ready, but doubtful" in fetch(http_url(service)).body
        assert (service.status() or {})["ready"]
        assert service.stop() == 0


def test_a_model_of_ones_own_is_compared_with_its_first_canary_after_a_restart_too(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    # Given a model that no band is known for, and its first canary
    own = shutil.copytree(built("efficientnet-lite0").directory, tmp_path / "own")
    manifest = json.loads((own / "manifest.json").read_text()) | {"name": "our-own", "build": None}
    (own / "manifest.json").write_text(json.dumps(manifest))
    with service_with(broker, queue_prefix, tmp_path / "run", TENSORFLOW__MODEL=str(own)) as service:
        first = canary_of(service)
        assert first["fault"] is None
        assert first["models"][0]["expected"] == "animal"
        assert service.stop() == 0
    assert list(json.loads((tmp_path / "run/state/canary.json").read_text())) == [ModelPackage.load(own).identity]
    # When the same one is started again, it is as before
    with service_with(broker, queue_prefix, tmp_path / "run", TENSORFLOW__MODEL=str(own)) as service:
        assert canary_of(service)["fault"] is None
        assert service.stop() == 0
    # When its labels are put into another order, it is not
    mixed = with_other_labels(ModelPackage.load(own), tmp_path / "mixed")
    with service_with(broker, queue_prefix, tmp_path / "run", TENSORFLOW__MODEL=str(mixed)) as service:
        assert canary_of(service)["fault"] in {"wrong_tag", "out_of_band"}
        assert service.stop() == 0


def test_there_is_none_while_events_are_paused_and_where_it_is_switched_off(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    with service_with(broker, queue_prefix, tmp_path) as service:
        canary_of(service)
        with service.paused():
            # Given a pause of more than one interval, none is begun in it
            until(lambda: canary_of(service)["ago_s"] > 12, "an interval has passed without another", within_s=40)
        until(lambda: canary_of(service)["ago_s"] < 10, "it goes on after the pause", within_s=30)
        assert total(metrics_of(service), "autotag_canary_failures_total") == 0
        assert service.stop() == 0
    with running_service(broker, queue_prefix, tmp_path / "off") as service:
        service.ready()
        assert (service.status() or {})["canary"] is None
        assert "autotag_canary_ok{" not in metrics_of(service)
        assert service.stop() == 0


def test_a_model_child_that_dies_of_other_causes_is_no_fault_of_the_canary(
    broker: str, queue_prefix: str, tmp_path: Path
) -> None:
    with service_with(broker, queue_prefix, tmp_path) as service:
        canary_of(service)
        service.crash_model(1)
        service.ready()
        wait_for_another(service)
        assert total(metrics_of(service), "autotag_canary_failures_total") == 0
        assert service.stop() == 0


async def test_one_that_does_not_come_back_is_late_unless_events_are_paused(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        defaults=InstanceSettings.model_validate({"tensorflow": {"enabled": True}}),
        tensorflow=TensorFlowSettings(model="efficientnet-lite0", threads=1),
    )
    metrics, paused = Metrics(), [True]
    engine = await open_engine(settings, metrics)
    assert engine.model is not None
    canary = Canary(metrics.canary, tmp_path / "canary.json", lambda: paused[0], within_s=2.0)
    running = asyncio.create_task(canary.run_regularly())
    try:
        await engine.wait_ready()
        # Given a model child that stands still
        pid = engine.model.states()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        # While events are paused, none is begun
        canary.use(Active(settings, engine))
        await asyncio.sleep(0)
        assert canary.status(time.monotonic()) is None
        # When they are not, it is late
        paused[0] = False
        last = await eventually(lambda: canary.status(time.monotonic()), "it was over", within_s=30)
        assert (last.fault, last.models) == ("late", [])
        text = generate_latest(metrics.registry).decode()
        assert value(text, "autotag_canary_ok", model="efficientnet-lite0") == 0
        assert value(text, "autotag_canary_failures_total", reason="late") == 1
        # And as expected again when the child goes on
        os.kill(pid, signal.SIGCONT)
        canary.use(Active(settings, engine))
        await eventually(
            lambda: (
                "autotag_canary_ok{" in (text := generate_latest(metrics.registry).decode())
                and value(text, "autotag_canary_ok", model="efficientnet-lite0") == 1
            ),
            "it was as expected again",
            within_s=30,
        )
    finally:
        running.cancel()
        await engine.kill()
        await engine.close()


def test_nothing_is_scored_in_place_of_the_picture(tmp_path: Path) -> None:
    """The pixels that are measured above are not those of a file that could not be read."""
    with as_file(files("worker.tagging.canary") / "picture.jpg") as file:
        assert np.std(picture(file, built("efficientnet-lite0").manifest.recipe())) > 20

"""The local model is asked for as little as the least threshold of an instance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.cloud import image_of, picture
from tests.support.manifests import manifest
from worker.models.labels import Label
from worker.models.manifest import ModelPackage
from worker.models.selection import LocalModels
from worker.providers.tensorflow import TensorFlow
from worker.settings import InstanceSettings
from worker.supervision.model_pool import ModelPool


class ScriptedPool:
    """A model that is hardly sure of its two labels, and is asked for scores from a floor on."""

    async def score(self, _pixels: int, floor: float, *_: object) -> list[tuple[int, float]]:
        return [(index, score) for index, score in enumerate((0.3, 0.05)) if score >= floor]


@pytest.mark.parametrize(
    ("labels", "found"),
    [({}, []), ({"thresholds": {"a": 0.2}}, ["a"]), ({"thresholds": {"a": 0.9, "b": 0.05}}, ["a", "b"])],
)
async def test_a_threshold_of_a_label_may_be_below_that_of_the_model(labels: dict[str, Any], found: list[str]) -> None:
    package = ModelPackage(Path("/nothing"), manifest())
    package.__dict__["described_labels"] = (Label("a"), Label("b"))
    provider = TensorFlow(LocalModels((package,)), cast("ModelPool", ScriptedPool()))
    image = replace(image_of(picture()), pixels_fd=0)
    instance = InstanceSettings.model_validate({"tensorflow": {"confidence_threshold": 0.5}, "labels": labels})
    answer = await provider.tag(image, instance)
    assert [each.name for each in answer.suggestions] == found

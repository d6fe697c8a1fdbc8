"""The built-in model on 100 labelled photographs: the whole path from JPEG to label, as in the children."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.models import built, picture, score_elsewhere
from worker.models.manifest import ModelPackage

LEAST_RIGHT = 87

pytestmark = pytest.mark.timeout(600)  # the first run on a machine builds the model


class Photographs:
    """The labelled photographs as a model's input."""

    def __init__(self, directory: Path, package: ModelPackage) -> None:
        with (directory / "labels.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        recipe = package.manifest.recipe()
        self.labels = [row["label"].casefold() for row in rows]
        self.classes = np.array([int(row["class_index"]) for row in rows])
        self.pictures: npt.NDArray[np.uint8] = np.stack([picture(directory / row["file"], recipe) for row in rows])


@pytest.fixture(scope="module")
def labelled(images100: Path) -> Photographs:
    return Photographs(images100, built("efficientnet-lite2"))


def test_the_quantised_model_is_as_good_as_the_float_one(labelled: Photographs, tmp_path: Path) -> None:
    quantised = score_elsewhere(built("efficientnet-lite2"), labelled.pictures, tmp_path)
    exact = score_elsewhere(built("efficientnet-lite2-float"), labelled.pictures, tmp_path)

    right, right_in_float = (
        int((found["scores"].argmax(axis=1) == labelled.classes).sum()) for found in (quantised, exact)
    )
    assert right >= LEAST_RIGHT
    assert right >= right_in_float - 1
    named = [name.casefold() for name in quantised["best"]]
    assert sum(name == label for name, label in zip(named, labelled.labels, strict=True)) == right


def test_a_confidence_means_what_it_says(labelled: Photographs, tmp_path: Path) -> None:
    found = score_elsewhere(built("efficientnet-lite2"), labelled.pictures, tmp_path)["scores"]
    right = float((found.argmax(axis=1) == labelled.classes).mean())
    assert float(found.max(axis=1).mean()) == pytest.approx(right, abs=0.1)

"""The built-in model on 100 labelled photographs: the whole path from JPEG to label, as in the children."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.models import built, picture, score_elsewhere
from worker.models.manifest import ModelPackage
from worker.providers.base import Suggestion
from worker.settings import InstanceSettings
from worker.tagging.confidences import LEAST_SCORE, Meanings
from worker.tagging.merge import choose, tags_of
from worker.tagging.tagger import thresholds
from worker.vocabulary import ancestors

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


def test_with_the_defaults_nearly_every_photograph_has_true_tags_and_few_that_are_not(
    labelled: Photographs, tmp_path: Path
) -> None:
    package = built("efficientnet-lite2")
    rows = score_elsewhere(package, labelled.pictures, tmp_path)["scores"]
    meanings, settings = Meanings(package.described_labels, package.manifest), InstanceSettings()
    labels = [f"wn:{str(label.wordnet_id)[1:]}-n" for label in package.described_labels]
    numbers, true, with_a_true_one = [], 0, 0
    for row, answer in zip(rows, labelled.classes, strict=True):
        scores = [(int(place), float(row[place])) for place in np.flatnonzero(row >= LEAST_SCORE)]
        found = meanings.confidences(scores, settings.tensorflow.threshold)
        suggestions = [Suggestion(each.name, each.value, each.concept, each.kind, each.specific) for each in found]
        limits = {"tensorflow": thresholds(settings, "tensorflow")}
        tags = tags_of(choose({"tensorflow": suggestions}, thresholds=limits, rules=settings.labels))
        right = {labels[answer], *ancestors(labels[answer])}
        numbers.append(len(tags))
        true += sum(tag.concept in right for tag in tags)
        with_a_true_one += any(tag.concept in right for tag in tags)
    assert with_a_true_one >= 93
    assert true / sum(numbers) >= 0.95
    assert 2 <= float(np.mean(numbers)) <= 3
    assert numbers.count(0) <= 4

"""Which models go together, and in which order their outputs are numbered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import manifest
from worker.errors import Misconfigured
from worker.images.requests import Fit
from worker.models.labels import Label
from worker.models.manifest import ModelPackage
from worker.models.selection import LocalModels, in_order


def package(name: str, labels: int = 2, features: str | None = None, **fields: Any) -> ModelPackage:
    """One without files. `features`: of the model that it reads."""
    found = ModelPackage(Path("/models") / name, manifest(name=name, input={"size": 8, "features": features}, **fields))
    found.__dict__["labels"] = tuple(f"label {number}" for number in range(labels))
    found.__dict__["described_labels"] = tuple(map(Label, found.labels))
    return found


CLASSIFIER = package("one", output={"activation": "logits", "features": "pooled"})
HEAD = package("head", features="one")


def test_one_that_reads_features_comes_behind_those_that_look_at_pixels() -> None:
    assert in_order([HEAD, CLASSIFIER, package("two")]) == (CLASSIFIER, package("two"), HEAD)
    assert LocalModels(in_order([HEAD, CLASSIFIER])).name == "one+head"


def test_only_those_that_look_at_pixels_have_a_recipe() -> None:
    padded = package("two", kind="detector")
    models = LocalModels((CLASSIFIER, padded, HEAD))
    assert len(models.recipes) == 2
    assert models.recipes[0].fit is Fit.CROP


def test_a_model_is_named_by_its_name_another_name_or_its_directory() -> None:
    detector = package("nanodet-320")
    models = LocalModels((CLASSIFIER, detector))
    assert models.named("one") == models.named("/models/one") == CLASSIFIER
    assert models.named("nanodet") == detector
    assert models.named("two") is None


@pytest.mark.parametrize(
    ("packages", "complaint"),
    [
        ((CLASSIFIER, CLASSIFIER), "two of the models are called one"),
        ((HEAD,), "model head reads the features of one, which is not before it"),
        ((HEAD, CLASSIFIER), "which is not before it"),
        ((package("one"), HEAD), r"which has none \(`output.features` is not set\)"),
        ((package("one", labels=1 << 16), package("two")), "at most 65536 can be numbered"),
        ((), "none of the models looks at the pixels"),
    ],
)
def test_those_that_do_not_go_together_are_refused(packages: tuple[ModelPackage, ...], complaint: str) -> None:
    with pytest.raises(Misconfigured, match=complaint):
        LocalModels(packages)

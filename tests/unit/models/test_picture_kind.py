"""The package `picture-kind`, which the wheel holds: its files agree with each other and with the vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import worker.models
from worker.models.manifest import ModelPackage, RuntimeName
from worker.vocabulary import ConceptKind, ancestors, concepts

FOLDER = Path(worker.models.__file__).parent / "packages" / "picture-kind"


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return ModelPackage.load(FOLDER)


def labels() -> list[list[str]]:
    return [line.split("\t") for line in (FOLDER / "labels.txt").read_text(encoding="utf-8").splitlines()]


def test_its_files_are_those_that_the_manifest_names(package: ModelPackage) -> None:
    package.verify()
    assert package.manifest.runtime is RuntimeName.LITERT
    assert {path.name for path in FOLDER.iterdir()} == {"manifest.json", "labels.txt", "model.tflite"}


def test_all_of_its_labels_but_the_photograph_are_kinds_of_the_vocabulary(package: ModelPackage) -> None:
    first, *kinds = labels()
    assert first == list(package.manifest.output.ignored_labels) == ["photograph"]
    assert [name for _, name in kinds] == [concept.removeprefix("kind:") for concept, _ in kinds]
    known = {one for one, concept in concepts().items() if concept.kind is ConceptKind.IMAGE_KIND}
    groups = {one for one in known if not ancestors(one)}
    assert groups == {"kind:text", "kind:graphic"}
    assert known - groups == {concept for concept, _ in kinds}


def test_it_has_an_output_for_each_label_and_an_input_for_each_feature(package: ModelPackage) -> None:
    interpreter = Interpreter(model_path=str(package.model_path), num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert list(entry["shape"]) == [1, package.manifest.input.size] == [1, 1280]
    assert list(output["shape"]) == [1, len(labels())]
    assert entry["dtype"] is output["dtype"] is np.float32
    interpreter.set_tensor(entry["index"], np.zeros((1, 1280), np.float32))
    interpreter.invoke()
    assert np.isfinite(interpreter.get_tensor(output["index"])).all()

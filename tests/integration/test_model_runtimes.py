"""The two runtimes, on the built-in model and on small ones whose results can be computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.models import built, picture, run_python, score_elsewhere, write_package
from worker.errors import Misconfigured
from worker.models.runtimes import open_runtime

COLOURS = {"red": (200, 30, 10), "green": (0, 120, 60), "blue": (100, 100, 110)}

pytestmark = pytest.mark.timeout(600)  # the first run on a machine builds the model


def plain(size: int, *colours: str) -> npt.NDArray[np.uint8]:
    return np.stack([np.full((size, size, 3), COLOURS[name], np.uint8) for name in colours])


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: npt.NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
    return shares


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory with a small model, for each kind."""
    directories = {}
    for kind in ("graph_def", "saved_model", "tflite"):
        directories[kind] = tmp_path_factory.mktemp(kind)
        run_python("tests.support.small_models", kind, directories[kind] / f"model.{kind}")
    return directories


def test_the_built_in_model_knows_what_is_on_the_photographs(photographs: dict[str, Path]) -> None:
    package = built("efficientnet-lite2")
    runtime = open_runtime(package, threads=2)
    found = {}
    for name, path in photographs.items():
        [scores] = runtime.score(picture(path, package.manifest.recipe())[None])
        found[name] = {package.labels[index] for index in np.flatnonzero(scores >= 0.1)}
    assert found["chelsea"] & {"tabby", "tiger cat", "Persian cat", "Egyptian cat"}
    assert "espresso" in found["coffee"]
    assert found["motorcycle_left"] & {"moped", "motor scooter"}


def test_the_built_in_model_runs_without_tensorflow(tmp_path: Path) -> None:
    modules = score_elsewhere(built("efficientnet-lite2"), np.zeros((1, 260, 260, 3), np.uint8), tmp_path)["modules"]
    assert "ai_edge_litert" in modules
    assert not {"tensorflow", "keras"} & modules


def test_a_batch_gives_what_its_pictures_give_alone(photographs: dict[str, Path]) -> None:
    package = built("efficientnet-lite2")
    runtime = open_runtime(package, threads=2)
    batch = np.stack([picture(path, package.manifest.recipe()) for path in photographs.values()])
    together = runtime.score(batch)
    assert together.shape == (5, 1000)
    assert together.dtype == np.float32
    for pictures, expected in ((batch[:2], together[:2]), (batch[2:3], together[2:3]), (batch, together)):
        np.testing.assert_allclose(runtime.score(pictures), expected, atol=1e-5)


def test_an_input_with_a_quantisation_of_its_own_gets_the_right_numbers(small: dict[str, Path]) -> None:
    model_input = {"size": 8, "dtype": "int8", "mean": 0, "scale": 0.5}
    output = {"activation": "logits", "temperature": 50}
    package = write_package(small["tflite"], "model.tflite", list(COLOURS), input=model_input, output=output)
    found = open_runtime(package).score(plain(8, *COLOURS))
    expected = softmax(np.array(list(COLOURS.values()), np.float32) * 2 / 50)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_bgr_models_get_blue_first(small: dict[str, Path]) -> None:
    model_input = {"size": 8, "dtype": "int8", "scale": 0.5, "channels": "bgr"}
    package = write_package(small["tflite"], "model.tflite", ["blue", "green", "red"], input=model_input)
    found = open_runtime(package).score(plain(8, *COLOURS))
    assert [package.labels[index] for index in found.argmax(axis=1)] == ["red", "green", "blue"]


def test_a_saved_model(small: dict[str, Path], tmp_path: Path) -> None:
    package = write_package(
        small["saved_model"],
        "model.saved_model",
        list(COLOURS),
        runtime="saved_model",
        input={"name": "picture", "size": 8, "mean": 100, "scale": 20},
        output={"name": "colours", "activation": "logits"},
    )
    found = score_elsewhere(package, plain(8, *COLOURS), tmp_path)
    expected = softmax((np.array(list(COLOURS.values()), np.float32) - 100) / 20)
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)
    assert found["best"] == list(COLOURS)


def test_a_graph_def_of_inceptions_convention(small: dict[str, Path], tmp_path: Path) -> None:
    labels = ["dummy", *(f"label {number}" for number in range(1, 1001))]
    labels[10], labels[20], labels[30] = COLOURS
    package = write_package(
        small["graph_def"],
        "model.graph_def",
        labels,
        runtime="graph_def",
        input={"name": "input", "size": 224, "mean": 117, "fit": "squash", "interpolation": "bilinear"},
        output={"name": "output", "activation": "probabilities", "ignored_labels": ["dummy"]},
    )
    found = score_elsewhere(package, plain(224, *COLOURS), tmp_path)["scores"]

    logits = np.zeros((3, 1008))
    logits[:, [10, 20, 30]] = (np.array(list(COLOURS.values())) - 117) * 0.1
    logits[:, [0, 1005]] = 12.0
    expected = softmax(logits)[:, :1001]
    expected[:, 0] = 0
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_manifest_that_names_no_tensor_of_the_model_is_refused(small: dict[str, Path]) -> None:
    output = {"name": "logits", "activation": "logits"}
    model_input = {"size": 8, "dtype": "int8"}
    package = write_package(small["tflite"], "model.tflite", list(COLOURS), input=model_input, output=output)
    with pytest.raises(Misconfigured, match=r"output\.name must name one of its outputs"):
        open_runtime(package)


def test_a_manifest_that_declares_another_input_is_refused(small: dict[str, Path]) -> None:
    package = write_package(small["tflite"], "model.tflite", list(COLOURS), input={"size": 16, "dtype": "int8"})
    with pytest.raises(Misconfigured, match=r"its input is int8 \[1, 8, 8, 3\]"):
        open_runtime(package)


@pytest.mark.parametrize("runtime", ["litert", "graph_def", "saved_model"])
def test_what_is_no_model_is_refused_by_name(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "model.bin").write_bytes(b"this is no model")
    package = write_package(
        tmp_path,
        "model.bin",
        ["cat"],
        runtime=runtime,
        input={"name": "input", "size": 8},
        output={"name": "output", "activation": "logits"},
    )
    output = run_python("tests.support.refusal", package.directory)
    assert output.startswith("model_refused: ")
    assert "model.bin" in output

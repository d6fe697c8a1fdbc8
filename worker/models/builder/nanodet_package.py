"""NanoDet's package: its graph for one size of image as a LiteRT file with int8 weights, compared with the float one.

Activations stay float and are quantised as they come ("dynamic range"): as fast as with fixed ranges, and much closer.
Of classes that the float network gives at least 0.4 to on 100 photographs, the int8 one gives that to 97 in 100 at 320
pixels; with fixed ranges it was 90.

Nearly all of the difference that is left comes from the first convolutions, whose weights are few but spread widely.
Where they stay float (`Detector.float_convolutions`), logits of classes above 0.2 differ by 0.037 (root of the mean
square, 100 photographs, 416 pixels) and not by 0.091, for a fifth more of the detector's time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from worker.errors import Misconfigured
from worker.images.requests import Fit, Interpolation, PixelRecipe
from worker.models import labels
from worker.models.builder import calibration
from worker.models.builder.nanodet import MEAN, SCALE, build_detector, read_graph
from worker.models.builder.progress import report_progress
from worker.models.catalogue import NANODET_FILES, NANODET_PACKAGE, Detector
from worker.models.manifest import (
    Calibration,
    Curve,
    Manifest,
    ModelInput,
    ModelKind,
    ModelOutput,
    ModelPackage,
    PinnedFile,
    RuntimeName,
    file_sha256,
    write_manifest,
)
from worker.models.runtimes import open_runtime
from worker.models.runtimes.runtime import PixelArray
from worker.supervision.cgroup import usable_cores

CHECK_CROPS_EACH = 12
SURE = 0.4
LEAST_AGREEMENT = 0.85
_SEED = 2021


def build(model: Detector, directory: Path, weights: Path) -> ModelPackage:
    """Build the package in an empty directory, from the two files in `weights`. Raises `Misconfigured` or `OSError`."""
    import tensorflow as tf

    report_progress("reading the weights")
    for name, pinned in NANODET_FILES.items():
        if file_sha256(weights / name) != pinned:
            raise Misconfigured(f"{weights / name} is not the pinned file", reason="weights_refused")
    graph = read_graph((weights / "nanodet.json").read_bytes(), (weights / "nanodet.bin").read_bytes())
    report_progress("building the graph")
    detect, size = build_detector(graph, model.size), model.size
    run = tf.function(
        lambda pixels: detect((tf.cast(pixels, tf.float32) - MEAN) * (1 / SCALE)),
        input_signature=[tf.TensorSpec([1, size, size, 3], tf.uint8)],
        autograph=False,
    )
    report_progress("quantising")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    quantised = converter.convert()
    if model.float_convolutions:
        converter.optimizations = []
        quantised = _with_float_weights(quantised, converter.convert(), model.float_convolutions)
    (directory / "model.tflite").write_bytes(quantised)
    write_manifest(directory, _manifest(model, directory, {}))
    agreement, classes = _agreement(run, ModelPackage.load(directory))
    if agreement < LEAST_AGREEMENT:
        raise Misconfigured(
            f"{model.name}: the quantised network gives {agreement:.0%} of {classes} classes what the float one gives "
            f"them (at least {LEAST_AGREEMENT:.0%} are wanted). Report this with the version of TensorFlow "
            f"({version('tensorflow')})",
            reason="model_build_failed",
        )
    checked = {"check_classes": classes, "same_classes_as_float": round(agreement, 4)}
    write_manifest(directory, _manifest(model, directory, checked))
    return ModelPackage.load(directory)


def _with_float_weights(quantised: bytes, exact: bytes, number: int) -> bytes:
    """The quantised network with the weights of `exact` in the first `number` of its convolutions that have others.

    The converter has no such choice. LiteRT computes each convolution in the type of its weights.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    network, source = (flatbuffer_utils.read_model_from_bytearray(bytearray(each)) for each in (quantised, exact))
    pairs = zip(_convolutions(network), _convolutions(source), strict=True)
    differing = ((ours, theirs) for ours, theirs in pairs if ours.type != theirs.type)
    for ours, theirs in islice(differing, number):
        ours.type, ours.quantization = theirs.type, theirs.quantization
        network.buffers[ours.buffer].data = source.buffers[theirs.buffer].data
    return bytes(flatbuffer_utils.convert_object_to_bytearray(network))


def _convolutions(network: Any) -> Iterator[Any]:
    """The weights of each convolution, as tensors of the flatbuffer, in the order in which they are computed."""
    from tensorflow.lite.python import schema_py_generated as schema

    [graph] = network.subgraphs
    for operator in graph.operators:
        if network.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D:
            yield graph.tensors[operator.inputs[1]]


def _agreement(run: Callable[[Any], Any], package: ModelPackage) -> tuple[float, int]:
    """Of the classes that either network is sure of on crops of photographs, those that both are; and how many."""
    runtime = open_runtime(package, threads=usable_cores())
    both = either = 0
    recipe = package.manifest.recipe()
    crops = list(_crops(recipe))
    for done, pixels in enumerate(crops):
        report_progress("checking against the float model", done, len(crops))
        reference = 1 / (1 + np.exp(-run(pixels[None]).numpy()[0]))
        sure, found = reference >= SURE, runtime.score(pixels[None])[0] >= SURE
        both, either = both + int((sure & found).sum()), either + int((sure | found).sum())
    return (both / either if either else 1.0), either


def _crops(recipe: PixelRecipe) -> list[PixelArray]:
    names = (*calibration.CALIBRATION, *calibration.HELD_OUT)
    return list(calibration.crops(names, CHECK_CROPS_EACH, recipe, _SEED))


def _manifest(model: Detector, directory: Path, checked: dict[str, float | int]) -> Manifest:
    curve = Curve(slope=model.slope, offset=model.offset)
    shutil.copyfile(labels.COCO, directory / "labels.txt")
    file = directory / "model.tflite"
    return Manifest(
        name=model.name,
        kind=ModelKind.DETECTOR,
        build=model.build_key,
        runtime=RuntimeName.LITERT,
        model=PinnedFile(file=file.name, sha256=file_sha256(file)),
        labels=PinnedFile(file="labels.txt", sha256=file_sha256(directory / "labels.txt")),
        # The graph itself subtracts the mean and divides by the scale.
        input=ModelInput(
            size=model.size,
            dtype="uint8",
            scale=1.0,
            fit=Fit.PAD,
            fill=round(MEAN),
            margin=0,
            interpolation=Interpolation.BILINEAR,
        ),
        output=ModelOutput(activation="sigmoid", temperature=1.0, label_offset=0, ignored_labels=()),
        calibration=Calibration(label=curve, parent=curve),
        licence="Apache-2.0 (the network's authors), MIT (the package)",
        source=f"NanoDet-g, from {NANODET_PACKAGE} (npm)",
        checked={"tensorflow": version("tensorflow"), "checked_with": "crops of scikit-image's photographs"} | checked,
    )

"""Runs a SavedModel or a frozen GraphDef with TensorFlow, for models that have no `.tflite` form.

Normalising and the model are one traced function: calling a model eagerly, or through Keras's `predict` for every
picture, costs several times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from worker.errors import Misconfigured
from worker.models.manifest import ModelInput, ModelPackage, RuntimeName
from worker.models.runtimes.confidences import Confidences
from worker.models.runtimes.runtime import Pictures, Runtime, Scores

# What TensorFlow raises for a file it cannot read or a tensor that is not there.
_REFUSALS = (ValueError, KeyError, OSError, TypeError, tf.errors.OpError)

Graph = Callable[[Any], Any]


class TensorFlowModel(Runtime):
    """A traced function from uint8 pictures to the model's raw output, which shares a batch out over the cores."""

    def __init__(self, package: ModelPackage, graph: Graph) -> None:
        self._confidences = Confidences(package)
        size = package.manifest.input.size
        self._run = tf.function(
            lambda pixels: graph(_normalised(pixels, package.manifest.input)),
            input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)],
        ).get_concrete_function()
        self._one_at_a_time = ThreadPoolExecutor(1, "inference")

    def submit(self, pixels: Pictures, *, alone: bool) -> list[Future[Scores]]:
        """See `Runtime.submit`."""
        futures: list[Future[Scores]] = [Future() for _ in pixels]
        self._one_at_a_time.submit(self._score, pixels, futures)
        return futures

    def _score(self, pixels: Pictures, futures: Sequence[Future[Scores]]) -> None:
        """When a batch as a whole fails, each picture is tried by itself."""
        try:
            rows = self._confidences.of(self._run(tf.constant(pixels)).numpy())
            scored = list(zip(futures, rows, strict=True))
        except Misconfigured as error:
            if len(futures) == 1:
                futures[0].set_exception(error)
                return
            for number, future in enumerate(futures):
                self._score(pixels[number : number + 1], [future])
        except Exception as error:  # noqa: BLE001 - whoever waits is to hear of it
            for future in futures:
                future.set_exception(error)
        else:
            for future, row in scored:
                future.set_result(row)


def open_tensorflow(package: ModelPackage, threads: int = 1) -> TensorFlowModel:
    """Load a SavedModel or a GraphDef. Raises `Misconfigured` if it cannot be loaded or lacks a tensor."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # a process sets this once, before its first model
    opener = _saved_model if package.manifest.runtime is RuntimeName.SAVED_MODEL else _graph_def
    try:
        return TensorFlowModel(package, opener(package))
    except _REFUSALS as error:
        raise Misconfigured(
            f"TensorFlow cannot run {package.model_path} as its manifest says: {error}", reason="model_refused"
        ) from error


def _normalised(pixels: Any, given: ModelInput) -> Any:
    values = tf.cast(pixels, tf.float32)
    values = values[..., ::-1] if given.channels == "bgr" else values
    values = (values - given.mean) / given.scale
    return values if given.dtype == "float32" else tf.cast(tf.round(values), tf.as_dtype(given.dtype))


def _saved_model(package: ModelPackage) -> Graph:
    loaded = tf.saved_model.load(str(package.model_path))
    signature = loaded.signatures["serving_default"]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    input_name = _one("input", package.manifest.input.name, list(inputs))
    output_name = _one("output", package.manifest.output.name, list(outputs))

    def run(values: Any, _kept: Any = loaded) -> Any:  # the variables live as long as what was loaded
        return signature(**{input_name: values})[output_name]

    return run


def _graph_def(package: ModelPackage) -> Graph:
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(package.model_path.read_bytes())
    except Exception as error:  # protobuf's own exception types differ between its implementations
        raise ValueError(f"this is not a GraphDef ({error})") from error
    names = [node.name for node in graph_def.node]
    input_name = _one("input", package.manifest.input.name, names)
    output_name = _one("output", package.manifest.output.name, names)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
    graph: Graph = wrapped.prune(f"{input_name}:0", f"{output_name}:0")
    return graph


def _one(what: str, name: str | None, names: list[str]) -> str:
    if name in names:
        return name
    if name is None and len(names) == 1:
        return names[0]
    raise ValueError(f"{what}.name must be one of {', '.join(names[:20])}; it is {name!r}")

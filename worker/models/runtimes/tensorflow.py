"""Runs a SavedModel or a frozen GraphDef with TensorFlow, for models without a `.tflite` file.

Normalisation and the model are traced as one function: calling a model eagerly, or through Keras's `predict` for every
image, takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from worker.errors import Misconfigured
from worker.models.manifest import ModelInput, ModelPackage, RuntimeName
from worker.models.runtimes.confidences import Confidences
from worker.models.runtimes.runtime import Features, ImageScores, PixelArray, Runtime

# What TensorFlow raises for a file that it cannot read or a tensor that does not exist.
_LOAD_ERRORS = (ValueError, KeyError, OSError, TypeError, tf.errors.OpError)

_Graph = Callable[[Any], tuple[Any, Any]]
"""From the model's input to its output, and to the features that its manifest names, if it does."""


class TensorFlowModel(Runtime):
    """A traced function from uint8 images to the model's raw output; TensorFlow distributes a batch over the cores."""

    def __init__(self, package: ModelPackage, graph: _Graph) -> None:
        self._name = package.manifest.name
        self._confidences = Confidences(package)
        model_input = package.manifest.input
        size = model_input.size
        of_pixels = tf.TensorSpec([None, size, size, 3], tf.uint8)
        self._run = tf.function(
            graph if model_input.features else lambda pixels: graph(_normalised(pixels, model_input)),
            input_signature=[tf.TensorSpec([None, size], tf.float32) if model_input.features else of_pixels],
            autograph=False,  # it writes Python files to a temporary directory, which the model's sandbox forbids
        ).get_concrete_function()
        self._executor = ThreadPoolExecutor(1, "inference")  # one thread: TensorFlow uses the cores itself

    def submit(self, inputs: PixelArray | Features, *, alone: bool) -> list[Future[ImageScores]]:
        """See `Runtime.submit`."""
        futures: list[Future[ImageScores]] = [Future() for _ in inputs]
        self._executor.submit(self._score, inputs, futures)
        return futures

    def _score(self, inputs: PixelArray | Features, futures: Sequence[Future[ImageScores]]) -> None:
        """Score a batch; if it fails as a whole, score each image by itself."""
        try:
            raw, features = self._run(tf.constant(inputs))
            rows = self._confidences.of(raw.numpy())
            found = [None] * len(rows) if features is None else features.numpy().reshape(len(rows), -1)
            scored = list(zip(futures, map(ImageScores, rows, found), strict=True))
        except Misconfigured as error:
            if len(futures) == 1:
                futures[0].set_exception(error)
                return
            for number, future in enumerate(futures):
                self._score(inputs[number : number + 1], [future])
        except tf.errors.PermissionDeniedError as error:
            for future in futures:
                future.set_exception(_forbidden(self._name, error))
        except Exception as error:  # noqa: BLE001 - raised by the futures
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
        pass  # it can only be set before a process loads its first model
    opener = _saved_model if package.manifest.runtime is RuntimeName.SAVED_MODEL else _graph_def
    try:
        return TensorFlowModel(package, opener(package))
    except tf.errors.PermissionDeniedError as error:
        raise _forbidden(package.manifest.name, error) from error
    except _LOAD_ERRORS as error:
        raise Misconfigured(
            f"TensorFlow cannot run {package.model_path} as its manifest says: {error}", reason="model_refused"
        ) from error


def _forbidden(name: str, error: tf.errors.PermissionDeniedError) -> Misconfigured:
    """A graph may hold operations that read and write files: those of the package can be read, and no others."""
    return Misconfigured(
        f"model {name} does what a model must not, and was stopped: {error.message}. "
        "It reads or writes files outside its package: do not use it",
        reason="model_forbidden",
    )


def _normalised(pixels: Any, model_input: ModelInput) -> Any:
    values = tf.cast(pixels, tf.float32)
    values = values[..., ::-1] if model_input.channels == "bgr" else values
    values = (values - model_input.mean) / model_input.scale
    return values if model_input.dtype == "float32" else tf.cast(tf.round(values), tf.as_dtype(model_input.dtype))


def _saved_model(package: ModelPackage) -> _Graph:
    loaded = tf.saved_model.load(str(package.model_path))
    signature = loaded.signatures["serving_default"]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    input_name = _tensor_name("input", package.manifest.input.name, list(inputs))
    output_name = _tensor_name("output", package.manifest.output.name, list(outputs))
    features = package.manifest.output.features
    features_name = features and _tensor_name("output", features, list(outputs))

    # `loaded` is kept as a default argument: the variables live only as long as it does.
    def run(values: Any, _loaded: Any = loaded) -> Any:
        found = signature(**{input_name: values})
        return found[output_name], found[features_name] if features_name else None

    return run


def _graph_def(package: ModelPackage) -> _Graph:
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(package.model_path.read_bytes())
    except Exception as error:  # protobuf's own exception types differ between its implementations
        raise ValueError(f"this is not a GraphDef ({error})") from error
    names = [node.name for node in graph_def.node]
    input_name = _tensor_name("input", package.manifest.input.name, names)
    output_name = _tensor_name("output", package.manifest.output.name, names)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
    features = package.manifest.output.features
    wanted = [output_name, *([_tensor_name("output", features, names)] if features else [])]
    graph = wrapped.prune(f"{input_name}:0", [f"{name}:0" for name in wanted])

    def run(values: Any) -> tuple[Any, Any]:
        output, *rest = graph(values)
        return output, rest[0] if rest else None

    return run


def _tensor_name(what: str, name: str | None, names: list[str]) -> str:
    if name in names:
        return name
    if name is None and len(names) == 1:
        return names[0]
    raise ValueError(f"{what}.name must be one of {', '.join(names[:20])}; it is {name!r}")

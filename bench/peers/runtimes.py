"""What runs the model for a competitor; BENCH_RUNTIME says which, BENCH_THREADS bounds its threads.

keras        `Model.predict`, what nearly everybody writes
savedmodel   the SavedModel's own traced function, the fastest way through TensorFlow: for those who know
litert       the quantised model in LiteRT, the very file that Autotag runs
"""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol

import common
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class Runtime(Protocol):
    """A loaded model."""

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """`[N, size, size, 3]` uint8 in, `[N, labels]` out."""


class Keras:
    """A `.keras` file."""

    def __init__(self) -> None:
        _bound_threads()
        import keras

        self._model = keras.models.load_model(common.MODEL, compile=False)

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """See `Runtime`."""
        return np.asarray(self._model.predict(common.normalised(pictures), verbose=0))


class SavedModel:
    """A SavedModel's default signature."""

    def __init__(self) -> None:
        self._tf = _bound_threads()
        self._loaded = self._tf.saved_model.load(common.MODEL)
        self._run = self._loaded.signatures["serving_default"]
        ((_, inputs),) = [self._run.structured_input_signature]
        (self._input,) = inputs
        (self._output,) = self._run.structured_outputs

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """See `Runtime`."""
        batch = self._tf.constant(common.normalised(pictures))
        return np.asarray(self._run(**{self._input: batch})[self._output].numpy())


class LiteRT:
    """A `.tflite` file, for one picture at a time. Each thread has an interpreter of its own, as it must."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """See `Runtime`."""
        interpreter = self._interpreter()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pictures)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))

    def _interpreter(self) -> Any:
        if not hasattr(self._of_thread, "interpreter"):
            from ai_edge_litert.interpreter import Interpreter

            self._of_thread.interpreter = Interpreter(model_path=common.MODEL, num_threads=_threads() or 1)
            self._of_thread.interpreter.allocate_tensors()
        return self._of_thread.interpreter


def open_runtime() -> Runtime:
    """The one that the environment names."""
    known: dict[str, type[Runtime]] = {"keras": Keras, "savedmodel": SavedModel, "litert": LiteRT}
    return known[os.environ["BENCH_RUNTIME"]]()


def _threads() -> int:
    return int(os.environ.get("BENCH_THREADS", "0"))


def _bound_threads() -> Any:
    """TensorFlow, with its threads bounded where that is asked for."""
    import tensorflow

    if _threads():
        tensorflow.config.threading.set_intra_op_parallelism_threads(_threads())
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow

"""The float model in TensorFlow: by default the SavedModel's own traced function, the fastest of TensorFlow's ways.

BENCH_THREADS bounds TensorFlow's threads; unset, they are TensorFlow's own choice.
"""

from __future__ import annotations

import os

import common
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class SavedModel:
    """Logits of one picture or several."""

    def __init__(self) -> None:
        import tensorflow as tf

        if threads := int(os.environ.get("BENCH_THREADS", "0")):
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self._tf = tf
        self._loaded = tf.saved_model.load(common.MODEL)
        self._run = self._loaded.signatures["serving_default"]
        ((_, inputs),) = [self._run.structured_input_signature]
        (self._input,) = inputs
        (self._output,) = self._run.structured_outputs

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """`[N, size, size, 3]` uint8 in, `[N, labels]` out."""
        batch = self._tf.constant(common.normalised(pictures))
        return self._run(**{self._input: batch})[self._output].numpy()

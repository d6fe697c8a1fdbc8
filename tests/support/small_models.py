"""`python -m tests.support.small_models KIND PATH` writes small models that recognise colours, made with TensorFlow.

graph_def     in Inception5h's convention: `input` [N, 224, 224, 3], less 117, `output` 1,008 probabilities. Output 10
              grows with red, 20 with green, 30 with blue; 0 (`dummy`) and 1005 (which has no label) are always high.
saved_model   takes an 8 x 8 `picture`; gives logits for red, green and blue in `colours`, and another output.
tflite        the same in int8, with an input quantised in steps of 2 from -10, which differs from raw pixel values.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

OUTPUTS = 1008
COLOURS = np.eye(3, dtype=np.float32)


def inception_weights() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weights and bias that convert the mean colour (less 117) to logits."""
    weights, bias = np.zeros((3, OUTPUTS), np.float32), np.zeros(OUTPUTS, np.float32)
    for channel, output in enumerate((10, 20, 30)):
        weights[channel, output] = 0.1
    bias[[0, 1005]] = 12.0
    return weights, bias


def graph_def(path: Path) -> None:
    weights, bias = inception_weights()
    with tf.Graph().as_default() as graph:
        picture = tf.compat.v1.placeholder(tf.float32, [None, None, None, 3], name="input")
        logits = tf.matmul(tf.reduce_mean(picture, axis=[1, 2]), weights) + bias
        tf.nn.softmax(logits, name="output")
    path.write_bytes(graph.as_graph_def().SerializeToString())


class Colours(tf.Module):  # type: ignore[misc]
    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="picture")])  # type: ignore[untyped-decorator]
    def __call__(self, picture: Any) -> dict[str, Any]:
        return {"colours": tf.matmul(tf.reduce_mean(picture, axis=[1, 2]), COLOURS), "size": tf.shape(picture)[1]}


def saved_model(path: Path) -> None:
    module = Colours()
    tf.saved_model.save(module, str(path), signatures=module.__call__)


def tflite(path: Path) -> None:
    def representative() -> Iterator[list[Any]]:
        ramp = np.linspace(-10, 500, 8 * 8 * 3, dtype=np.float32).reshape(1, 8, 8, 3)
        for value in (ramp, np.full_like(ramp, -10), np.full_like(ramp, 500)):
            yield [value]

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])  # type: ignore[untyped-decorator]
    def colours(picture: Any) -> Any:
        return tf.matmul(tf.reduce_mean(picture, axis=[1, 2]), COLOURS)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([colours.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


if __name__ == "__main__":
    {"graph_def": graph_def, "saved_model": saved_model, "tflite": tflite}[sys.argv[1]](Path(sys.argv[2]))

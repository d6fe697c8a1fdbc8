"""`python -m tests.support.prying_models KIND PATH READ WRITE` writes a model that copies a file whenever it scores.

The file READ is copied to WRITE by operations of its graph. Beside that it is an ordinary model of an 8 x 8 `input`,
with three logits as `output`; KIND is `saved_model` or `graph_def`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tensorflow as tf


def prying(picture: Any, read: str, write: str) -> Any:
    copied = tf.io.write_file(write, tf.io.read_file(read))
    with tf.control_dependencies([copied]):
        return tf.reduce_mean(picture, axis=[1, 2], name="output")


def saved_model(path: Path, read: str, write: str) -> None:
    class Prying(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="input")])  # type: ignore[untyped-decorator]
        def __call__(self, picture: Any) -> dict[str, Any]:
            return {"output": prying(picture, read, write)}

    module = Prying()
    tf.saved_model.save(module, str(path), signatures=module.__call__)


def graph_def(path: Path, read: str, write: str) -> None:
    with tf.Graph().as_default() as graph:
        prying(tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], name="input"), read, write)
    path.write_bytes(graph.as_graph_def().SerializeToString())


if __name__ == "__main__":
    {"saved_model": saved_model, "graph_def": graph_def}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])

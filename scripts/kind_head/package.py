"""Writes the head as a model package: a LiteRT file with one fully connected layer."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from kind_head.features import MODEL
from kind_head.generate import KINDS, PHOTOGRAPH
from kind_head.regression import Linear
from worker.models.manifest import (
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

NAME = "picture-kind"


def labels() -> str:
    """The label file: an output a line, with the concept of the vocabulary where it has one."""
    return "".join([f"{PHOTOGRAPH}\n", *(f"kind:{kind}\t{kind}\n" for kind in KINDS)])


def converted(linear: Linear) -> bytes:
    """The LiteRT file: float32 features `[1, 1280]` to float32 logits `[1, 10]`."""
    import tensorflow as tf

    weights = tf.constant(linear.weights.astype("float32"))
    bias = tf.constant(linear.bias.astype("float32"))
    function = tf.function(
        lambda features: {"logits": tf.matmul(features, weights) + bias},
        input_signature=[tf.TensorSpec([1, linear.weights.shape[0]], tf.float32, name="features")],
        autograph=False,
    ).get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())


def write(folder: Path, linear: Linear, heat: float, package: ModelPackage, counts: dict[str, int]) -> None:
    """Write model, labels and manifest. `counts`: how many pictures of each class it was trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    model, names = folder / "model.tflite", folder / "labels.txt"
    model.write_bytes(converted(linear))
    names.write_text(labels(), encoding="utf-8")
    manifest = Manifest(
        name=NAME,
        kind=ModelKind.ATTRIBUTES,
        group="image_kind",
        suppresses=("photograph",),
        runtime=RuntimeName.LITERT,
        model=PinnedFile(file=model.name, sha256=file_sha256(model)),
        labels=PinnedFile(file=names.name, sha256=file_sha256(names)),
        input=ModelInput(features=MODEL, size=len(linear.weights), dtype="float32"),
        output=ModelOutput(activation="logits", temperature=heat, ignored_labels=(PHOTOGRAPH,)),
        licence="Apache-2.0",
        source="trained by scripts/kind_head",
        checked={
            "features_of": MODEL,
            "trained_on": ", ".join(f"{count} {name}" for name, count in counts.items()),
            "trained_with": f"features of {package.identity}, tensorflow {version('tensorflow')}",
        },
    )
    write_manifest(folder, manifest)

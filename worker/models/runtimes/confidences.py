"""Converts a model's raw output to one confidence per label."""

from __future__ import annotations

import numpy as np

from worker.errors import Misconfigured
from worker.models.manifest import ModelKind, ModelPackage
from worker.models.runtimes.runtime import RawOutput, Scores


class Confidences:
    """Applies the output half of a manifest: activation, temperature, label offset, ignored labels."""

    def __init__(self, package: ModelPackage) -> None:
        self._package = package
        self._output = package.manifest.output
        ignored = set(self._output.ignored_labels)
        names = package.labels
        if unknown := ignored - set(names):
            raise Misconfigured(
                f"model {package.manifest.name}: output.ignored_labels names {min(unknown)!r}, "
                "which is not among its labels",
                reason="model_manifest",
            )
        self._ignored = np.array([index for index, name in enumerate(names) if name in ignored], dtype=np.intp)
        self._labels = len(names)

    def of(self, raw: RawOutput) -> Scores:
        """Convert `[N, outputs]` to float32 `[N, labels]`, each between 0 and 1. Outputs past the labels are dropped.

        Of a detector that puts out the scores of several places, `[N, places, outputs]`, the highest count.

        Raises `Misconfigured` if there are too few outputs, or one is not a finite number.
        """
        first = self._output.label_offset
        if raw.ndim > 2 and self._package.manifest.kind is ModelKind.DETECTOR:
            raw = raw.reshape(raw.shape[0], -1, raw.shape[-1]).max(axis=1)
        if raw.ndim != 2 or raw.shape[1] < first + self._labels:
            raise Misconfigured(
                f"model {self._package.manifest.name} put out an array of shape {raw.shape}; its {self._labels} labels "
                f"at output.label_offset {first} need [images, at least {first + self._labels}]",
                reason="model_output",
            )
        # All outputs are part of the softmax, even those without a label: the model was trained with them.
        activated = self._activate(raw.astype(np.float32))
        confidences = activated[:, first : first + self._labels]
        confidences[:, self._ignored] = 0.0
        return confidences

    def _activate(self, raw: Scores) -> Scores:
        if not np.isfinite(raw).all():
            raise Misconfigured(
                f"model {self._package.manifest.name} put out values that are not finite numbers", reason="model_output"
            )
        if self._output.activation == "probabilities":
            if self._output.temperature == 1.0:
                return np.clip(raw, 0.0, 1.0)
            raw = np.log(np.clip(raw, 1e-12, 1.0))
        scaled = raw / np.float32(self._output.temperature)
        if self._output.activation == "sigmoid":
            return np.asarray((1 + np.tanh(scaled / 2)) / 2, dtype=np.float32)  # in the form that never overflows
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)

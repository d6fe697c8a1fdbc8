"""Multinomial logistic regression with weighted examples, by accelerated gradient descent: nothing in it is random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_STEPS = 3000


@dataclass(frozen=True, slots=True)
class Linear:
    """`features @ weights + bias` are logits; `weights` is `[features, classes]`."""

    weights: Floats
    bias: Floats

    def logits(self, features: npt.NDArray[np.float32]) -> Floats:
        """Logits `[N, classes]`."""
        return np.asarray(features.astype(np.float64) @ self.weights + self.bias)


def softmax(logits: Floats) -> Floats:
    """Probabilities `[N, classes]`."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fitted(features: npt.NDArray[np.float32], classes: npt.NDArray[np.int64], share: Floats, penalty: float) -> Linear:
    """Fit with an L2 penalty on weights of standardised features. `share`: what each class counts for, in all 1."""
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64) + 1e-3
    standard = (features - mean) / deviation
    wanted = np.eye(len(share))[classes]
    each = (share / np.maximum(wanted.sum(axis=0), 1))[classes][:, None]
    weights, bias = np.zeros((standard.shape[1], len(share))), np.log(share)
    ahead, bias_ahead = weights, bias
    step = 1.0 / (0.5 * np.linalg.norm(standard * np.sqrt(each), 2) ** 2 + 0.5 + penalty)
    for number in range(_STEPS):
        error = (softmax(standard @ ahead + bias_ahead) - wanted) * each
        new, new_bias = ahead - step * (standard.T @ error + penalty * ahead), bias_ahead - step * error.sum(axis=0)
        momentum = number / (number + 3)
        ahead, bias_ahead = new + momentum * (new - weights), new_bias + momentum * (new_bias - bias)
        weights, bias = new, new_bias
    scaled = weights / deviation[:, None]
    return Linear(scaled, bias - mean @ scaled)


def temperature(logits: Floats, classes: npt.NDArray[np.int64], each: Floats) -> float:
    """What logits are divided by so that the weighted log loss is least, to a hundredth."""
    candidates = np.arange(0.3, 5.0, 0.01)
    rows = np.arange(len(classes))
    losses = [-(each * np.log(softmax(logits / t)[rows, classes] + 1e-12)).sum() for t in candidates]
    return round(float(candidates[int(np.argmin(losses))]), 2)

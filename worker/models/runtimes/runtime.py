"""The interface of a runtime: a loaded model that scores images, several at once if it can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PixelArray = npt.NDArray[np.uint8]
"""RGB pixels: one image `[S, S, 3]`, or several `[N, S, S, 3]`."""

Features = npt.NDArray[np.float32]
"""What a model has found in images, for another to read: of one image `[F]`, or of several `[N, F]`."""

Scores = npt.NDArray[np.float32]
"""Confidences from 0 to 1: of one image `[labels]`, or of several `[N, labels]`."""

RawOutput = npt.NDArray[np.generic]
"""As the model puts it out, of several images: `[N, outputs]`; of a detector also `[N, places, outputs]`."""


@dataclass(frozen=True, slots=True)
class ImageScores:
    """What a model makes of one image; `features` where its manifest names them."""

    scores: Scores
    features: Features | None = None


class Runtime(ABC):
    """A loaded model."""

    @abstractmethod
    def submit(self, inputs: PixelArray | Features, *, alone: bool) -> list[Future[ImageScores]]:
        """Start scoring RGB images `[N, S, S, 3]`, or features `[N, F]` where the model reads those.

        Images are started in the order of submission. A future may raise `Misconfigured`. `alone`: no other process
        needs these cores now, so a single image may use all of them.
        """

    def score(self, inputs: PixelArray | Features) -> Scores:
        """Score images and wait for all of them: float32 `[N, labels]`. Raises `Misconfigured`."""
        return np.stack([future.result().scores for future in self.submit(inputs, alone=True)])

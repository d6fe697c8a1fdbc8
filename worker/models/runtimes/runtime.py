"""The interface of a runtime: a loaded model that scores images, several at once if it can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

PixelArray = npt.NDArray[np.uint8]
"""RGB pixels: one image `[S, S, 3]`, or several `[N, S, S, 3]`."""

Scores = npt.NDArray[np.float32]
"""Confidences from 0 to 1: of one image `[labels]`, or of several `[N, labels]`."""


class Runtime(ABC):
    """A loaded model."""

    @abstractmethod
    def submit(self, pixels: PixelArray, *, alone: bool) -> list[Future[Scores]]:
        """Start scoring RGB images `[N, S, S, 3]`; the future of each has float32 `[labels]`, between 0 and 1.

        Images are started in the order of submission. A future may raise `Misconfigured`. `alone`: no other process
        needs these cores now, so a single image may use all of them.
        """

    def score(self, pixels: PixelArray) -> Scores:
        """Score images `[N, S, S, 3]` and wait for all of them: float32 `[N, labels]`. Raises `Misconfigured`."""
        return np.stack([future.result() for future in self.submit(pixels, alone=True)])

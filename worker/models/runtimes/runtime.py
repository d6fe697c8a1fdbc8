"""What a runtime is: a loaded model that scores pictures, several at once where it can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]


class Runtime(ABC):
    """A loaded model."""

    @abstractmethod
    def submit(self, pixels: Pictures, *, alone: bool) -> list[Future[Scores]]:
        """Begin to score RGB pictures `[N, S, S, 3]`; for each, float32 `[labels]`, confidences between 0 and 1.

        Pictures submitted before are begun before. A future may raise `Misconfigured`. `alone`: nobody else is at work
        on these cores, so that a single picture may have all of them.
        """

    def score(self, pixels: Pictures) -> Scores:
        """Score pictures `[N, S, S, 3]` and wait for all of them: float32 `[N, labels]`. Raises `Misconfigured`."""
        return np.stack([future.result() for future in self.submit(pixels, alone=True)])

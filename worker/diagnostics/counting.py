"""How many images a run finished, and in what time: from the end of one of the model's batches to the end of another.

Images finish in batches, a whole one at the same moment. A window that begins or ends within one would count images
without the time that they took, or the other way round; with one batch alone there is no time at all. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

MINIMUM_BATCHES = 4
"""Between the two ends. Fewer say little: each takes the time that it takes by chance."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What was finished, and the time that it took."""

    images: int
    seconds: float

    @property
    def images_per_s(self) -> float:
        """The rate."""
        return self.images / self.seconds


def images_needed(batch_size: int) -> int:
    """The number of finished images from which on `counted_of` finds a rate, whatever batches they came in."""
    return (MINIMUM_BATCHES + 2) * batch_size


def counted_of(finished_s: Sequence[float], batch_size: int) -> Counted | None:
    """What was finished between two ends of batches; None where that would be fewer than `MINIMUM_BATCHES`.

    `finished_s`: the moment at which each image was finished, in any order. A batch is at most `batch_size` images: the
    widest gap among that many moments at either end of the run is the end of one.
    """
    moments_s = sorted(finished_s)
    if len(moments_s) < images_needed(batch_size):
        return None
    first = _before_widest_gap(moments_s[: batch_size + 1])
    last = len(moments_s) - batch_size - 1 + _before_widest_gap(moments_s[-batch_size - 1 :])
    seconds = moments_s[last] - moments_s[first]
    return Counted(last - first, seconds) if seconds > 0 else None


def _before_widest_gap(moments_s: Sequence[float]) -> int:
    gaps_s = [after_s - before_s for before_s, after_s in itertools.pairwise(moments_s)]
    return gaps_s.index(max(gaps_s))

"""How much was done, how long it took and how much waited, in short steps over the last quarter of an hour.

Times are counted in classes that grow by a fifth, so that a percentile is off by a tenth at most and a step costs the
same few hundred bytes however much happens in it.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from dataclasses import dataclass, field

BUCKET_S = 10.0
BUCKETS = 90

_SHORTEST_S = 0.001
_GROWTH = 1.2
_CLASSES = 80  # up to 0.001 * 1.2^80 s, which is 36 minutes


@dataclass(slots=True)
class Bucket:
    """One step. `waiting` is None where nobody knew how much waited."""

    answered: int = 0
    failed: int = 0
    put_off: int = 0
    waiting: int | None = None
    in_hand: int = 0
    _times: array[int] = field(default_factory=lambda: array("L", bytes(array("L").itemsize * _CLASSES)))

    @property
    def ended(self) -> int:
        """Deliveries that ended in it."""
        return self.answered + self.failed + self.put_off

    def percentile_s(self, share: float) -> float | None:
        """The time within which `share` (0 to 1) of the answers came; None without answers."""
        return percentile_s([self], share)

    def took(self, seconds: float) -> None:
        """One more answer came after so long."""
        self._times[_class_of(seconds)] += 1


class Throughput:
    """The last BUCKETS steps of BUCKET_S each."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, Bucket]] = deque(maxlen=BUCKETS)

    def ended(self, ending: str, status: str | None, took_s: float, now_s: float) -> None:
        """A delivery ended: `ending` and `status` are the pipeline's words."""
        bucket = self._now(now_s)
        if ending == "answered":
            bucket.answered += 1
            bucket.took(took_s)
        elif ending == "dead_lettered" or status == "failed":
            bucket.failed += 1
        else:
            bucket.put_off += 1

    def sampled(self, waiting: int | None, in_hand: int, now_s: float) -> None:
        """So much waits in the queues, and so much is being worked on. The most in a step is what is kept of it."""
        bucket = self._now(now_s)
        if waiting is not None:
            bucket.waiting = max(waiting, bucket.waiting or 0)
        bucket.in_hand = max(in_hand, bucket.in_hand)

    def window(self, now_s: float) -> list[Bucket]:
        """BUCKETS steps, the running one last; empty ones where nothing was recorded."""
        last = _number(now_s)
        known = dict(self._buckets)
        return [known.get(number) or Bucket() for number in range(last - BUCKETS + 1, last + 1)]

    def _now(self, now_s: float) -> Bucket:
        number = _number(now_s)
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append((number, Bucket()))
        return self._buckets[-1][1]


def percentile_s(buckets: list[Bucket], share: float) -> float | None:
    """The time within which `share` (0 to 1) of all their answers came; None without answers."""
    times = [sum(counts) for counts in zip(*(bucket._times for bucket in buckets), strict=True)]
    wanted = share * sum(times)
    if not wanted:
        return None
    seen = 0
    for number, count in enumerate(times):
        seen += count
        if seen >= wanted:
            return float(_SHORTEST_S * _GROWTH ** (number + 0.5))
    return None


def _number(now_s: float) -> int:
    return int(now_s // BUCKET_S)


def _class_of(seconds: float) -> int:
    if seconds <= _SHORTEST_S:
        return 0
    return min(_CLASSES - 1, int(math.log(seconds / _SHORTEST_S) / math.log(_GROWTH)))

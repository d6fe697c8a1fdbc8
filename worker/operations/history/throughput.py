"""Ended deliveries, their durations and the queue lengths, in short steps over the last 15 minutes.

Durations are counted in classes that grow by a fifth, so that a percentile is off by a tenth at most, and a step takes
the same few hundred bytes however many deliveries end in it.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from worker.amqp.delivery import Ending

DeliveryOutcome = Literal["answered", "failed", "put_off"]

BUCKET_S = 10.0
BUCKETS = 90

_SHORTEST_S = 0.001
_GROWTH = 1.2
_CLASSES = 80  # up to 0.001 * 1.2^80 s, which is 36 minutes


@dataclass(slots=True)
class Bucket:
    """One step. `waiting`: events in the queues, None if unknown; `in_hand`: deliveries that are not settled yet."""

    answered: int = 0
    failed: int = 0
    put_off: int = 0
    waiting: int | None = None
    in_hand: int = 0
    _durations: array[int] = field(default_factory=lambda: array("L", bytes(array("L").itemsize * _CLASSES)))

    @property
    def ended(self) -> int:
        """Deliveries that ended in this step."""
        return self.answered + self.failed + self.put_off

    def percentile_s(self, share: float) -> float | None:
        """The duration within which `share` (0 to 1) of the answered deliveries ended; None if there are none."""
        return percentile_s([self], share)

    def add_duration(self, seconds: float) -> None:
        """Count the duration of an answered delivery."""
        self._durations[_class_of(seconds)] += 1


class Throughput:
    """The last BUCKETS steps of BUCKET_S each."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, Bucket]] = deque(maxlen=BUCKETS)

    def record(self, ending: Ending, status: str | None, took_s: float, now_s: float) -> None:
        """Count an ended delivery. `status` is that of its result, or None if there is none."""
        bucket = self._current(now_s)
        match outcome_of(ending, status):
            case "answered":
                bucket.answered += 1
                bucket.add_duration(took_s)
            case "failed":
                bucket.failed += 1
            case "put_off":
                bucket.put_off += 1

    def sample(self, waiting: int | None, in_hand: int, now_s: float) -> None:
        """Record how many events are waiting and in hand; a step keeps the maximum of its samples."""
        bucket = self._current(now_s)
        if waiting is not None:
            bucket.waiting = max(waiting, bucket.waiting or 0)
        bucket.in_hand = max(in_hand, bucket.in_hand)

    def window(self, now_s: float) -> list[Bucket]:
        """BUCKETS steps, the current one last; steps in which nothing was recorded are empty."""
        last = _number(now_s)
        known = dict(self._buckets)
        return [known.get(number) or Bucket() for number in range(last - BUCKETS + 1, last + 1)]

    def _current(self, now_s: float) -> Bucket:
        number = _number(now_s)
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append((number, Bucket()))
        return self._buckets[-1][1]


def outcome_of(ending: Ending, status: str | None) -> DeliveryOutcome:
    """What became of a delivery, for charts. `status` is that of its result, or None if there is none."""
    if ending is Ending.ANSWERED:
        return "answered"
    return "failed" if ending is Ending.DEAD_LETTERED or status == "failed" else "put_off"


def percentile_s(buckets: list[Bucket], share: float) -> float | None:
    """The duration within which `share` (0 to 1) of all answered deliveries ended; None if there are none."""
    totals = [sum(counts) for counts in zip(*(bucket._durations for bucket in buckets), strict=True)]
    wanted = share * sum(totals)
    if not wanted:
        return None
    seen = 0
    for number, count in enumerate(totals):
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

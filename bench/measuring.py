"""What measuring is, as plain arithmetic: rounds in random order, steady windows, medians with their spread, ratios.

Two things are only ever compared within one round. What the machine does meanwhile (its clock, its neighbours) then
weighs on both, and the median over the rounds of their ratio says more than the ratio of two medians.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WARM_UP_SHARE = 0.2
"""Of a run's images, the first that do not count: buffers and batches are still filling."""

TAIL_SHARE = 0.1
"""The last that do not count: the queue is empty by then, and a batch is no longer full."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Several measurements of the same thing: the median, and the lowest and highest."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """How far lowest and highest lie apart, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else math.nan

    def as_dict(self) -> dict[str, float]:
        """As it stands in `results.json`."""
        return {"median": self.median, "low": self.low, "high": self.high, "rounds": self.rounds}


def summarise(values: Iterable[float]) -> Summary:
    """The median of some measurements, with their spread. Raises ValueError when there is none."""
    found = list(values)
    if not found:
        raise ValueError("nothing was measured")
    return Summary(statistics.median(found), min(found), max(found), len(found))


def paired(over: Sequence[float], under: Sequence[float]) -> Summary:
    """The ratio of two things measured in the same rounds, round by round."""
    return summarise(top / bottom for top, bottom in zip(over, under, strict=True))


def shuffled_rounds(names: Sequence[str], rounds: int, seed: int) -> list[list[str]]:
    """Everybody once in each round, in an order of its own. The same seed gives the same orders."""
    draw = random.Random(seed)
    return [draw.sample(list(names), len(names)) for _ in range(rounds)]


@dataclass(frozen=True, slots=True)
class Window:
    """The steady part of a run: between two moments, so many images."""

    begin_s: float
    end_s: float
    images: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_s - self.begin_s

    @property
    def images_per_s(self) -> float:
        """The rate in it."""
        return self.images / self.seconds


def steady(finished_s: Iterable[float], warm_up: float = WARM_UP_SHARE, tail: float = TAIL_SHARE) -> Window:
    """The steady window of a run, from the moments at which its images were finished.

    Raises ValueError for fewer than ten images, or when all of them finished at one moment.
    """
    times = sorted(finished_s)
    if len(times) < 10:
        raise ValueError(f"{len(times)} images are too few for a steady window")
    first = max(1, math.floor(len(times) * warm_up))
    last = len(times) - 1 - math.floor(len(times) * tail)
    window = Window(times[first - 1], times[last], last - first + 1)
    if window.seconds <= 0:
        raise ValueError("all images finished at one moment")
    return window


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, between neighbours by straight line."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Rise of the least-squares line through (x, y) points. Raises ValueError for fewer than two different x."""
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """When events are published that come independently of each other: exponential gaps, from 0 up to `seconds`."""
    draw = random.Random(seed)
    times: list[float] = []
    now_s = draw.expovariate(rate_per_s)
    while now_s < seconds:
        times.append(now_s)
        now_s += draw.expovariate(rate_per_s)
    return times

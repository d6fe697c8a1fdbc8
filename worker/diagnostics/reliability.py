"""Shares with their intervals, and whether confidences mean what they say. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

_Z = 1.96
"""Standard deviations on either side of the mean that 95 % of a normal distribution lie within."""

BINS = 10


@dataclass(frozen=True, slots=True)
class Proportion:
    """`true` of `number`."""

    true: int
    number: int

    @property
    def value(self) -> float | None:
        """From 0 to 1; None of nothing."""
        return self.true / self.number if self.number else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's interval, which holds for small numbers too (E. B. Wilson, JASA 22, 1927)."""
        if not self.number:
            return None
        share, n = self.true / self.number, self.number
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        """For people."""
        within = self.interval
        if within is None:
            return "none to judge"
        return f"{self.true / self.number:.0%} [{within[0]:.0%}, {within[1]:.0%}] ({self.true} of {self.number})"

    def to_json(self) -> dict[str, object]:
        """As JSON values, rounded."""
        within = self.interval
        return {
            "true": self.true,
            "of": self.number,
            "share": None if self.value is None else round(self.value, 4),
            "interval": None if within is None else [round(each, 4) for each in within],
        }


@dataclass(slots=True)
class _Tenth:
    number: int = 0
    true: int = 0
    total: float = 0.0
    """The sum of the confidences."""


@dataclass(slots=True)
class Reliability:
    """Confidences beside what turned out to be true, by tenths of the confidence."""

    _tenths: list[_Tenth] = field(default_factory=lambda: [_Tenth() for _ in range(BINS)])
    _squares: float = 0.0

    def add(self, confidence: float, true: bool, number: int = 1) -> None:
        """Add tags with the same confidence."""
        one = self._tenths[min(int(confidence * BINS), BINS - 1)]
        one.number += number
        one.true += number * true
        one.total += number * confidence
        self._squares += number * (confidence - true) ** 2

    @property
    def number(self) -> int:
        """How many there are."""
        return sum(self.numbers())

    def __iter__(self) -> Iterator[tuple[float, Proportion]]:
        """For each tenth that has any: the mean of their confidences, and how many are true."""
        return ((each.total / each.number, Proportion(each.true, each.number)) for each in self._tenths if each.number)

    def numbers(self) -> list[int]:
        """How many there are in each tenth, from the lowest on."""
        return [each.number for each in self._tenths]

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error: how far mean confidence and share of true tags are apart, over all tags."""
        number = self.number
        return sum(abs(each.total - each.true) for each in self._tenths) / number if number else None

    @property
    def brier_score(self) -> float | None:
        """The mean square of confidence less truth (G. W. Brier, Monthly Weather Review 78, 1950): lower is better."""
        number = self.number
        return self._squares / number if number else None

"""Ended deliveries of the last 24 hours, in steps of ten minutes of the wall clock.

The counts of a day fit into a few kilobytes. Where the history is kept on disk, those of before a restart come from
there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from worker.operations.history.throughput import DeliveryOutcome

STEP_S = 600.0
STEPS = 144


@dataclass(slots=True)
class DayStep:
    """How many deliveries ended in one step, by what became of them."""

    answered: int = 0
    failed: int = 0
    put_off: int = 0

    @property
    def ended(self) -> int:
        """Deliveries that ended in this step."""
        return self.answered + self.failed + self.put_off

    def add(self, outcome: DeliveryOutcome, number: int = 1) -> None:
        """Count deliveries."""
        match outcome:
            case "answered":
                self.answered += number
            case "failed":
                self.failed += number
            case "put_off":
                self.put_off += number


class Day:
    """The last STEPS steps of STEP_S each. Times are seconds since 1970: a restart must not move them."""

    def __init__(self) -> None:
        self._steps: dict[int, DayStep] = {}

    def record(self, outcome: DeliveryOutcome, clock_s: float) -> None:
        """Count an ended delivery."""
        self._step(day_step(clock_s)).add(outcome)

    def merge(self, steps: Iterable[tuple[int, DayStep]]) -> None:
        """Add what had been counted before, as numbered steps."""
        for number, step in steps:
            mine = self._step(number)
            mine.answered += step.answered
            mine.failed += step.failed
            mine.put_off += step.put_off

    def window(self, clock_s: float) -> list[DayStep]:
        """STEPS steps, the current one last; steps in which nothing was counted are empty."""
        last = day_step(clock_s)
        return [self._steps.get(number) or DayStep() for number in range(last - STEPS + 1, last + 1)]

    def _step(self, number: int) -> DayStep:
        if number not in self._steps:
            self._steps[number] = DayStep()
            for old in [each for each in self._steps if each <= max(self._steps) - STEPS]:
                del self._steps[old]
            if number not in self._steps:  # the clock has been set back by more than a day
                self._steps = {number: DayStep()}
        return self._steps[number]


def day_step(clock_s: float) -> int:
    """The number of the step that a moment is in."""
    return int(clock_s // STEP_S)

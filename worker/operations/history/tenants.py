"""Ended deliveries of each configured instance in the last 15 minutes, in steps of one minute."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from worker.operations.history.throughput import DeliveryOutcome

MINUTES = 15
OTHER = "other"
"""Counts the instances without settings of their own together: events may make up their names."""

_OUTCOMES: tuple[DeliveryOutcome, ...] = ("answered", "failed", "put_off")


@dataclass(frozen=True, slots=True)
class TenantCounts:
    """Deliveries of one instance that ended in the last 15 minutes, and those answered in the last whole minute."""

    answered: int = 0
    failed: int = 0
    put_off: int = 0
    answered_last_minute: int = 0


class Tenants:
    """A few hundred bytes for each instance that has had an event."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()
        self._counts: dict[str, tuple[int, array[int]]] = {}

    def know(self, names: Iterable[str]) -> None:
        """Count these instances each by itself from now on, and forget those that are not among them."""
        self._known = frozenset(names)
        for name in self._counts.keys() - self._known - {OTHER}:
            del self._counts[name]

    def record(self, instance: str | None, outcome: DeliveryOutcome, now_s: float) -> None:
        """Count an ended delivery of an instance; None where the event's could not be read."""
        name = instance if instance in self._known and instance is not None else OTHER
        minute = int(now_s // 60)
        counts = self._up_to(name, minute)
        counts[_at(minute, outcome)] += 1
        self._counts[name] = (minute, counts)

    def counts(self, now_s: float) -> dict[str, TenantCounts]:
        """The counts of each instance that had an event in the last 15 minutes."""
        minute = int(now_s // 60)
        found = {}
        for name, (last, _) in self._counts.items():
            if last > minute - MINUTES:
                counts = self._up_to(name, minute)
                sums = [sum(counts[number :: len(_OUTCOMES)]) for number in range(len(_OUTCOMES))]
                answered, failed, put_off = sums
                found[name] = TenantCounts(answered, failed, put_off, counts[_at(minute - 1, "answered")])
        return found

    def _up_to(self, name: str, minute: int) -> array[int]:
        """The counts with those set to zero whose minutes have come around again since the last event."""
        last, counts = self._counts.get(name) or (minute, array("L", [0] * (MINUTES * len(_OUTCOMES))))
        counts = counts[:]
        for passed in range(last + 1, min(minute, last + MINUTES) + 1):
            for outcome in _OUTCOMES:
                counts[_at(passed, outcome)] = 0
        return counts


def _at(minute: int, outcome: DeliveryOutcome) -> int:
    return minute % MINUTES * len(_OUTCOMES) + _OUTCOMES.index(outcome)

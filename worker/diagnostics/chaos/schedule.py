"""The faults of a chaos run and when they happen: a pure function of the seed, so that a failed run can be repeated.

A fault is due after a number of ended events and not at a time: that way it happens under load on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

EVENTS_PER_FAULT = 250
"""One fault of each kind for this many events, beyond the minimum."""

MINIMUM_FAULTS = 10
"""Of each kind, in any run that has events enough for them."""

MINIMUM_EVENTS_PER_FAULT = 50
"""A short run has fewer faults, or no event would be answered between them."""

EVENTS_PER_DISABLING = 2500
"""The model is disabled once for this many events, and at least once: it takes seconds each time."""

_LONGEST_PAUSE_S = 1.5


class FaultKind(StrEnum):
    """What is killed or cut."""

    MODEL_CHILD = "model_child"
    DECODER = "decoder"
    PARENT = "parent"
    CONNECTION = "connection"
    """A worker's TCP connection to RabbitMQ."""
    BROKER = "broker"
    MODEL_DISABLED = "model_disabled"
    """Every worker's model is killed until the relaunch rule disables it; then an operator resets them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, due once `after_events` events have ended. `pick` from 0 to 1 chooses among the possible targets.

    A target that does not restart by itself (a parent, the broker) is started again `pause_s` later.
    """

    after_events: int
    kind: FaultKind
    pick: float
    pause_s: float


def schedule(seed: int, events: int, kinds: Iterable[FaultKind]) -> tuple[Fault, ...]:
    """The faults of a run, in order: at least one of each kind.

    They are due between a fiftieth and three quarters of the events, so that each finds some that have not ended.
    """
    randomly = random.Random(seed)  # noqa: S311 - it has to be repeatable
    each = min(max(MINIMUM_FAULTS, events // EVENTS_PER_FAULT), max(1, events // MINIMUM_EVENTS_PER_FAULT))
    faults = [
        Fault(
            after_events=randomly.randint(events // 50, events * 3 // 4),
            kind=kind,
            pick=randomly.random(),
            pause_s=randomly.uniform(0, _LONGEST_PAUSE_S),
        )
        for kind in kinds
        for _ in range(max(1, events // EVENTS_PER_DISABLING) if kind is FaultKind.MODEL_DISABLED else each)
    ]
    return tuple(sorted(faults, key=lambda fault: fault.after_events))

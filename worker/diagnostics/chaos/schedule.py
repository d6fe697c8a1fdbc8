"""What is struck, and when: a pure function of the seed, so that a run that lost something can be had again.

A blow falls when so many events have ended, and not after so many seconds: it falls under load on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

EVENTS_A_BLOW = 150
"""One blow of each kind for so many events, beyond the fewest."""

FEWEST_BLOWS = 10
"""Of each kind, in any run that has events enough for them."""

FEWEST_EVENTS_A_BLOW = 50
"""A short run has fewer blows, or nothing would be answered between them."""

_LONGEST_PAUSE_S = 1.5


class Kind(StrEnum):
    """What a blow falls upon."""

    MODEL_CHILD = "model_child"
    DECODER = "decoder"
    PARENT = "parent"
    CONNECTION = "connection"
    """A worker's connection to RabbitMQ is cut under it."""
    BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow: it falls when `after` events have ended. `pick` from 0 to 1 chooses among those there are.

    What has to be started again by hand (a parent, the broker) is started `pause_s` later.
    """

    after: int
    kind: Kind
    pick: float
    pause_s: float


def schedule(seed: int, events: int, kinds: Iterable[Kind]) -> tuple[Blow, ...]:
    """The blows of a run, in order. They fall between a fiftieth and nine tenths of the way."""
    randomly = random.Random(seed)  # noqa: S311 - to be repeatable is what is wanted of it
    each = min(max(FEWEST_BLOWS, events // EVENTS_A_BLOW), max(1, events // FEWEST_EVENTS_A_BLOW))
    blows = [
        Blow(
            after=randomly.randint(events // 50, events * 9 // 10),
            kind=kind,
            pick=randomly.random(),
            pause_s=randomly.uniform(0, _LONGEST_PAUSE_S),
        )
        for kind in kinds
        for _ in range(each)
    ]
    return tuple(sorted(blows, key=lambda blow: blow.after))

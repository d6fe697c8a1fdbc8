"""One measurement of one contestant: fill its queue, let it work, and see what the steady part of the run was like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from contestants import Contestant
from measuring import WARM_UP_SHARE, steady
from processes import Watch

_WITHIN_S = 300.0
_FEWEST = 24


@dataclass(frozen=True, slots=True)
class Run:
    """What a run showed. `cpu_ms`: processor milliseconds an image, by group of processes.

    `foreign_share` is the share of all cores that others had meanwhile: neither the contestant nor the broker.
    """

    images_per_s: float
    images: int
    seconds: float
    cpu_ms: dict[str, float]
    foreign_share: float

    @property
    def own_cpu_ms(self) -> float:
        """What an image costs without the broker's own time."""
        return sum(cost for group, cost in self.cpu_ms.items() if group != "broker")


class Track:
    """Measures contestants, and remembers how fast each is, so that a run lasts as long as is wanted."""

    def __init__(self, broker: int | None, cores: int | None = None) -> None:
        self._broker = broker
        self._cores = cores or len(os.sched_getaffinity(0))
        self._rates: dict[str, float] = {}

    def warm_up(self, contestant: Contestant, files: Sequence[Path]) -> None:
        """Run once without counting it, to learn the speed."""
        run = self._run(contestant, files, _fewest(contestant))
        self._rates[contestant.name] = run.images_per_s

    def measure(self, contestant: Contestant, files: Sequence[Path], seconds: float) -> Run:
        """A run of about `seconds`."""
        count = max(_fewest(contestant), round(self._rates.get(contestant.name, 0.0) * seconds))
        run = self._run(contestant, files, count)
        self._rates[contestant.name] = run.images_per_s
        return run

    def _run(self, contestant: Contestant, files: Sequence[Path], count: int) -> Run:
        groups = dict(contestant.groups())
        if self._broker is not None:
            broker = self._broker
            groups["broker"] = lambda: [broker]
        with Watch(groups) as watch:
            contestant.fill(files, count)
            finished_s = contestant.finished_s(count, _WITHIN_S)
        window = steady(finished_s)
        used_s = watch.used_s(window.begin_s, window.end_s)
        machine_s = used_s.pop("machine")
        foreign_s = max(0.0, machine_s - sum(used_s.values()))
        return Run(
            window.images_per_s,
            window.images,
            window.seconds,
            {group: spent / window.images * 1000 for group, spent in used_s.items()},
            foreign_s / (window.seconds * self._cores),
        )


def _fewest(contestant: Contestant) -> int:
    """So many images that those it begins with, all at once, lie within the warm-up."""
    return max(_FEWEST, ceil(contestant.in_hand / WARM_UP_SHARE))

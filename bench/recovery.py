"""What a dead model child costs: it is killed under load, and the results show for how long none came.

`recovery_s` is from the kill to the first result written after the successor was ready; `gap_s` the longest pause
between two results around the kill, which with a spare child is all there is to see.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from measuring import percentile
from service_under_test import AutotagService, by_path, written_at_s

NO_LIMIT = {
    "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "1000",
    # Each kill is the first that is remembered, so that none is answered by a pause.
    "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": "0.5",
}

_BEFORE_FIRST_KILL_S = 1.0
_BETWEEN_KILLS_S = 2.0
_LONGEST_RECOVERY_S = 10.0
_SPARE_WORK = 1.3


@dataclass(frozen=True, slots=True)
class Recoveries:
    """Seconds, one entry for each kill. `usual_gap_s`: the 99th percentile of the pauses while no child is killed."""

    recovery_s: list[float]
    gap_s: list[float]
    usual_gap_s: float


def measure(service: AutotagService, files: Sequence[Path], images_per_s: float, kills: int) -> Recoveries:
    """Kill the model child again and again while there is a backlog."""
    service.settle()
    count = round(images_per_s * _SPARE_WORK * (_BEFORE_FIRST_KILL_S + kills * _BETWEEN_KILLS_S))
    service.publish(by_path(files, count))
    time.sleep(_BEFORE_FIRST_KILL_S)
    killed_s = []
    for _ in range(kills):
        killed_s.append(_kill_one(service))
        time.sleep(_BETWEEN_KILLS_S)
    results_s = sorted(written_at_s(result) for result in service.results(count, within_s=300))
    # A kill after the work was over shows nothing.
    killed_s = [killed for killed in killed_s if results_s[-1] > killed + _BETWEEN_KILLS_S / 2]
    ready_s = [
        datetime.fromisoformat(line["timestamp"]).timestamp()
        for line in service.logged("child ready")
        if line["child"].startswith("model")
    ]
    return Recoveries(
        [_recovery_s(killed, ready_s, results_s) for killed in killed_s],
        [_longest_gap_s(killed, results_s) for killed in killed_s],
        _usual_gap_s(killed_s, results_s),
    )


def _kill_one(service: AutotagService) -> float:
    """Kill the model child that has done the work: with a spare there are two."""
    used = {pid: Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in service.children("model")}
    busiest = max(used, key=lambda pid: int(used[pid]))
    killed_at_s = time.time()
    os.kill(busiest, signal.SIGKILL)
    return killed_at_s


def _recovery_s(killed_s: float, ready_s: Sequence[float], results_s: Sequence[float]) -> float:
    successor_s = min((moment for moment in ready_s if moment > killed_s), default=killed_s + _LONGEST_RECOVERY_S)
    first_s = min((moment for moment in results_s if moment >= successor_s), default=killed_s + _LONGEST_RECOVERY_S)
    return first_s - killed_s


def _longest_gap_s(killed_s: float, results_s: Sequence[float]) -> float:
    around = [moment for moment in results_s if killed_s - 0.2 <= moment <= killed_s + _BETWEEN_KILLS_S]
    return max((later - earlier for earlier, later in pairwise(around)), default=_LONGEST_RECOVERY_S)


def _usual_gap_s(killed_s: Sequence[float], results_s: Sequence[float]) -> float:
    quiet = [
        later - earlier
        for earlier, later in pairwise(results_s)
        if not any(killed - 0.2 <= earlier <= killed + _BETWEEN_KILLS_S / 2 for killed in killed_s)
    ]
    return percentile(quiet, 0.99) if quiet else 0.0

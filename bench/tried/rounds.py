"""Short runs of several candidates for one task, interleaved in random order: milliseconds an item, wall and CPU."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROUNDS = 5
_SEED = 7

Candidate = Callable[[Any], object]


def measure(candidates: Mapping[str, Candidate], items: Sequence[Any], seconds: float) -> dict[str, dict[str, float]]:
    """Medians over the rounds, by candidate, or why it `failed`; `seconds` is the length of one run."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    failed: dict[str, str] = {}
    draw = random.Random(_SEED)
    for number in range(ROUNDS + 1):
        for name in draw.sample(list(candidates), len(candidates)):
            if name in failed:
                continue
            try:
                taken = _run(candidates[name], items, seconds)
            except Exception as error:  # noqa: BLE001 - a library that cannot do it is a finding, not the end
                failed[name] = f"{type(error).__name__}: {error}"[:200]
                continue
            if number:  # the first round is the warm-up
                found[name].append(taken)
    results: dict[str, dict[str, Any]] = {name: {"failed": why} for name, why in failed.items()}
    for name, taken_each in found.items():
        if name not in failed:
            wall_s, cpu_s = (statistics.median(each) for each in zip(*taken_each, strict=True))
            results[name] = {"wall_ms": wall_s * 1000, "cpu_ms": cpu_s * 1000}
    return {name: results[name] for name in candidates}


def _run(candidate: Candidate, items: Sequence[Any], seconds: float) -> tuple[float, float]:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    done = 0
    while time.perf_counter() - began_s < seconds:
        candidate(items[done % len(items)])
        done += 1
    return (time.perf_counter() - began_s) / done, (time.process_time() - began_cpu_s) / done

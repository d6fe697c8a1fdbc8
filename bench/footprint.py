"""Memory and starts: what each process holds, whether it grows, and how long a cold start takes to the first tag."""

from __future__ import annotations

import bisect
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from measuring import slope
from processes import proportional_mb, resident_mb
from service_under_test import AutotagService, by_path, written_at_s

NO_RECYCLING = {"DECODER__IMAGES_PER_CHILD": "0"}
"""Children that are replaced would hide what they grow by."""

_LOOK_EVERY_S = 0.5
_SETTLING_SHARE = 0.3
"""Of a long run, the first part that does not count as growth: buffers reach their size, caches fill."""


def resident(service: AutotagService) -> dict[str, float]:
    """Resident MB by process. The `total` counts pages that processes share once for each, `proportional` only once."""
    held = {"parent": resident_mb(service.pid)}
    for kind in ("decoder", "model"):
        for number, pid in enumerate(sorted(service.children(kind)), start=1):
            held[f"{kind}-{number}"] = resident_mb(pid)
    return held | {"total": sum(held.values()), "proportional": sum(proportional_mb(pid) for pid in service.pids())}


@dataclass(frozen=True, slots=True)
class Growth:
    """How memory went over a long run: (images done, parent MB, total MB), and the rise in MB over 10,000 images."""

    images: int
    points: list[tuple[float, float, float]]
    parent_mb_per_10000: float
    total_mb_per_10000: float


class _Sampler:
    """Looks at something every half second, until it is closed."""

    def __init__(self, look: Callable[[], tuple[float, float]]) -> None:
        self.samples: list[tuple[float, float, float]] = []
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            self.samples.append((time.time(), *self._look()))


def growth(service: AutotagService, files: Sequence[Path], images: int, within_s: float) -> Growth:
    """Tag many images in one go. Raises TimeoutError when that takes longer than `within_s`."""
    service.settle()
    pids = service.pids()

    def look() -> tuple[float, float]:
        return resident_mb(service.pid), sum(resident_mb(pid) for pid in pids)

    with _Sampler(look) as sampler:
        service.publish(by_path(files, images))
        finished_s = sorted(written_at_s(result) for result in service.results(images, within_s))
    points = [
        (float(bisect.bisect_right(finished_s, moment_s)), parent, total)
        for moment_s, parent, total in sampler.samples
        if moment_s <= finished_s[-1]
    ]
    settled = [point for point in points if point[0] >= images * _SETTLING_SHARE]
    return Growth(
        images,
        points,
        slope([(done, parent) for done, parent, _ in settled]) * 10_000,
        slope([(done, total) for done, _, total in settled]) * 10_000,
    )


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A start with events waiting: seconds to the first result, and what parent and broker held soon after."""

    waiting: int
    first_result_s: float
    parent_mb: float
    broker_mb: float


def cold_start(
    make: Callable[[str], AutotagService],
    files: Sequence[Path],
    waiting: int,
    broker: int | None,
    *,
    look_after_s: float,
) -> ColdStart:
    """Leave events in a queue, start a service there, and wait for its first result.

    `make` gives a service for a queue prefix. Memory is looked at `look_after_s` after that.
    """
    prefix = f"bench-cold-{uuid.uuid4().hex[:8]}"
    declaring = make(prefix)
    try:
        declaring.start().ready()
        declaring.stop()
        declaring.publish(by_path(files, waiting))
        service = make(prefix).start()
        try:
            first = service.first_result_s()
            time.sleep(look_after_s)
            held = resident_mb(service.pid)
        finally:
            service.stop()
        return ColdStart(waiting, first - service.started_at_s, held, resident_mb(broker) if broker else 0.0)
    finally:
        declaring.stop()
        declaring.remove_queues()

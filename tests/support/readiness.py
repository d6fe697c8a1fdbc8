"""Samples a service's readiness continuously while a test breaks something."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.polling import until
from tests.support.service import RunningService

_INTERVAL_S = 0.03


class Readiness:
    """The samples so far: when each was requested (monotonic), and whether the service was ready."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, bool]] = []

    @property
    def now(self) -> bool:
        """The last sample; not ready before there is one."""
        return bool(self.samples) and self.samples[-1][1]

    def ready_times(self, since_s: float, until_s: float) -> list[float]:
        """The times of the samples of this period in which the service was ready. Fails if there is no sample."""
        period = [sample for sample in self.samples if since_s <= sample[0] <= until_s]
        assert period, "there is no sample of this period"
        return [at_s for at_s, ready in period if ready]

    def first_ready_after(self, since_s: float) -> float | None:
        """The time of the first sample after `since_s` in which the service was ready."""
        return next((at_s for at_s, ready in self.samples if ready and at_s > since_s), None)


@contextmanager
def watched(service: RunningService) -> Iterator[Readiness]:
    """Sample during the whole block, in a thread."""
    readiness, stopped = Readiness(), threading.Event()

    def sample() -> None:
        while not stopped.wait(_INTERVAL_S):
            requested_at_s = time.monotonic()
            readiness.samples.append((requested_at_s, bool((service.status() or {}).get("ready"))))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        until(lambda: readiness.now, "it is ready before the fault")
        yield readiness
    finally:
        stopped.set()
        sampler.join(15)

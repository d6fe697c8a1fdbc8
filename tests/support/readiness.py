"""What a service says of its readiness, asked again and again while a test breaks something."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.polling import until
from tests.support.service import RunningService

_EVERY_S = 0.03


class Readiness:
    """The answers so far: when each was asked for (monotonic), and whether it was "ready"."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, bool]] = []

    @property
    def now(self) -> bool:
        """The last answer; not ready before there is one."""
        return bool(self.samples) and self.samples[-1][1]

    def said_ready(self, since_s: float, until_s: float) -> list[float]:
        """When it said that it was ready, of what was asked in this time."""
        asked = [sample for sample in self.samples if since_s <= sample[0] <= until_s]
        assert asked, "nobody asked in this time"
        return [when_s for when_s, ready in asked if ready]

    def first_ready_after(self, since_s: float) -> float | None:
        """When it first said so after a moment."""
        return next((when_s for when_s, ready in self.samples if ready and when_s > since_s), None)


@contextmanager
def watched(service: RunningService) -> Iterator[Readiness]:
    """Ask all through the block."""
    readiness, over = Readiness(), threading.Event()

    def ask() -> None:
        while not over.wait(_EVERY_S):
            asked_at_s = time.monotonic()
            readiness.samples.append((asked_at_s, bool((service.status() or {}).get("ready"))))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        until(lambda: readiness.now, "it is ready before anything is broken")
        yield readiness
    finally:
        over.set()
        asking.join(15)

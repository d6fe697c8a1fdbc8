"""Evidence that the event loop is running: a periodic task that measures by how much it is late.

Health, the lag metric and systemd's watchdog are all based on it. None of them uses a thread: a thread would go on
reporting good health beside a blocked loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Calls `on_beat(now_s)` every `interval_s`, in the event loop."""

    def __init__(self, interval_s: float, on_beat: Callable[[float], None]) -> None:
        self._interval_s = interval_s
        self._on_beat = on_beat
        self._due_s = time.monotonic() + interval_s
        self._last_lag_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task. Call it in the running loop."""
        self._due_s = time.monotonic() + self._interval_s
        self._task = asyncio.create_task(self._beat(), name="heartbeat")

    async def close(self) -> None:
        """Cancel the task and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def lag_s(self) -> float:
        """By how much the loop is late: the last beat's delay, or that of the next one if it is overdue."""
        return max(self._last_lag_s, time.monotonic() - self._due_s)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._due_s - time.monotonic()))
            now_s = time.monotonic()
            self._last_lag_s = now_s - self._due_s
            self._due_s = now_s + self._interval_s
            try:
                self._on_beat(now_s)
            except Exception:  # noqa: BLE001 - a fault in the callback must not look like a blocked loop
                _log.exception("unexpected error at a heartbeat")

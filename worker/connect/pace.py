"""At most so many writes in a second, evenly; and none while the target has asked for a pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Pace:
    """Turns, one after the other. `now_s` is a monotonic clock."""

    def __init__(self, per_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = 1 / per_s
        self._now_s = now_s
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait for a turn."""
        now_s = self._now_s()
        mine_s = max(now_s, self._next_s)
        self._next_s = mine_s + self._interval_s
        if mine_s > now_s:
            await asyncio.sleep(mine_s - now_s)

    def hold(self, for_s: float) -> None:
        """No turn comes before so many seconds have passed."""
        self._next_s = max(self._next_s, self._now_s() + for_s)

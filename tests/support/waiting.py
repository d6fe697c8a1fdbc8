"""Waiting until a condition holds, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], what: str = "the condition holds", within_s: float = 10.0) -> None:
    """Poll until `condition` holds. Raises TimeoutError, which names `what`, when it does not `within_s`."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.01)

"""Waiting for what happens in other processes and threads: polls a condition, and fails the test at a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

TIME_LIMIT_S = 60.0
"""How long a test waits for a whole service, which starts children and loads a model, on a busy machine."""

_T = TypeVar("_T")


def until(poll: Callable[[], _T | None], what: str, *, within_s: float = TIME_LIMIT_S) -> _T:
    """Call `poll` until it returns a true value, and return that. Fails with `what` after `within_s`; blocks."""
    deadline_s = time.monotonic() + within_s
    while not (found := poll()):
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
    return found


async def eventually(poll: Callable[[], _T | None], what: str, within_s: float = TIME_LIMIT_S) -> _T:
    """The same while the event loop goes on: for what this process, or a child that it supervises, has to do."""
    deadline_s = time.monotonic() + within_s
    while not (found := poll()):
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.01)
    return found

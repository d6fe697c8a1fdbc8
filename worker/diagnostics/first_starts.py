"""Whether children can start at all: a command that waits for one must not wait for what will never come."""

from __future__ import annotations

import asyncio

from worker.errors import Misconfigured
from worker.supervision.lifecycle import BecameDisabled, BecameReady, Cause, Crashed, Notice

REASON = "child_cannot_start"

_ATTEMPTS = 3
"""Starts of one kind of child that fail, none having succeeded, before the next is not waited for."""


class FirstStarts:
    """Observes the children of an engine (`observe`) until one of each kind has started."""

    def __init__(self) -> None:
        self._started: set[str] = set()
        self._failed: dict[str, int] = {}
        self._given_up: asyncio.Future[tuple[str, Cause]] = asyncio.get_running_loop().create_future()

    def observe(self, child: str, notice: Notice) -> None:
        """What happened to a child; its name is that of its kind, perhaps with a number."""
        kind = child.partition("-")[0]
        if isinstance(notice, BecameReady):
            self._started.add(kind)
        if kind in self._started or self._given_up.done() or not isinstance(notice, Crashed | BecameDisabled):
            return
        self._failed[kind] = self._failed.get(kind, 0) + 1
        if self._failed[kind] >= _ATTEMPTS or isinstance(notice, BecameDisabled):
            self._given_up.set_result((kind, notice.cause))

    async def failure(self) -> Misconfigured:
        """Wait until a kind of child has failed to start so often that another attempt is not worth waiting for."""
        kind, cause = await asyncio.shield(self._given_up)
        return Misconfigured(
            f"no {kind} child can start: {cause.message}; what it printed itself is in the log", reason=REASON
        )

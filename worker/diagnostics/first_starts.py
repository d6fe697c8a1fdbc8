"""Whether decoders can start at all: a command that waits for one must not wait for what will never come.

A service keeps trying, as the cause may pass; so do the decoders of a command. The model's pool gives up by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from worker.errors import Misconfigured
from worker.supervision.lifecycle import BecameDisabled, BecameReady, Cause, Crashed, Notice

REASON = "decoder_cannot_start"

_ATTEMPTS = 3
"""Starts of decoders that fail, none having succeeded, before the next is not waited for."""

_T = TypeVar("_T")


class FirstStarts:
    """Observes the children of an engine (`observe`) until a decoder has started."""

    def __init__(self) -> None:
        self._started = False
        self._failed = 0
        self._given_up: asyncio.Future[Cause] = asyncio.get_running_loop().create_future()

    def observe(self, child: str, notice: Notice) -> None:
        """What happened to a child; a decoder's name begins with `decoder`."""
        if self._started or self._given_up.done() or not child.startswith("decoder"):
            return
        match notice:
            case BecameReady():
                self._started = True
            case Crashed(cause) | BecameDisabled(cause):
                self._failed += 1
                if self._failed >= _ATTEMPTS or isinstance(notice, BecameDisabled):
                    self._given_up.set_result(cause)

    async def while_one_can_start(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What `work` returns, which needs a decoder. Raises Misconfigured, and cancels it, when none can start."""
        working = asyncio.create_task(work)
        try:
            either: set[asyncio.Future[Any]] = {working, self._given_up}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Misconfigured(
                    f"no decoder child can start: {self._given_up.result().message}; what it printed itself is in the "
                    "log",
                    reason=REASON,
                )
            return working.result()
        finally:
            working.cancel()
            await asyncio.wait({working})

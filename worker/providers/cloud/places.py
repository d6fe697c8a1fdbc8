"""Places for calls to one service, shared fairly by all instances, so that a hung one leaves room for the others.

The first call of each instance always has a place. Further ones share the rest, and an instance may take as many of
them as are still free (the dynamic threshold of Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory
Packet Switches", 1998), as long as its last call was answered: one that hangs, or has not answered yet, has one place.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from worker.providers.cloud.errors import CallNotMade


class Places:
    """The places of one service: one for each instance, and `shared` further ones; at most `each` for one instance."""

    def __init__(self, *, shared: int, each: int) -> None:
        self._each = each
        self._free = shared
        self._lines: deque[Share] = deque()
        """The shares in which somebody waits, the next to be served first."""

    def share(self, name: str) -> Share:
        """The places of one instance; `name` stands for it and the service in messages."""
        return Share(self, name)

    def has_room_for(self, share: Share) -> bool:
        """Whether the share may take one more place now."""
        if share.held == 0:
            return True
        return share.answers and share.held < self._each and share.held - 1 < self._free

    def take(self, share: Share) -> None:
        """Give the share a place."""
        if share.held > 0:
            self._free -= 1
        else:
            share.began_s = time.monotonic()
        share.held += 1

    def give_back(self, share: Share) -> None:
        """The share has one place less."""
        share.held -= 1
        if share.held > 0:
            self._free += 1
        self.serve()

    def wait_in_line(self, share: Share) -> None:
        """Somebody waits in this share."""
        if share not in self._lines:
            self._lines.append(share)

    def serve(self) -> None:
        """Give free places to those who wait, the instances in turn."""
        passed = 0
        while self._lines and passed < len(self._lines):
            share = self._lines[0]
            if not share.has_waiting():
                self._lines.popleft()
            elif self.has_room_for(share):
                share.call_next()
                self._lines.rotate(-1)
                passed = 0
            else:
                self._lines.rotate(-1)
                passed += 1


class Share:
    """The places of one instance at one service."""

    def __init__(self, places: Places, name: str) -> None:
        self._places = places
        self._name = name
        self._line: deque[tuple[asyncio.Future[None], float]] = deque()
        self.held = 0
        self.began_s = 0.0
        """When the first of the places that are held now was taken."""
        self.answers = False
        """Whether the last call was answered; without that, one call is made at a time."""

    def answered(self, well: bool) -> None:
        """The outcome of a call: whether the service has answered at all."""
        self.answers = well
        self._places.serve()

    @asynccontextmanager
    async def place(self, longest_wait_s: float | None) -> AsyncIterator[None]:
        """Hold a place during the block. Raises CallNotMade if there is none within `longest_wait_s`; None: wait on."""
        await self._take(longest_wait_s)
        try:
            yield
        finally:
            self._places.give_back(self)

    def waited_s(self, now_s: float) -> float:
        """How long the first in the line has waited, or the only call that may be made has gone without an answer."""
        in_line_s = now_s - self._line[0][1] if self.has_waiting() else 0.0
        unanswered_s = now_s - self.began_s if self.held and not self.answers else 0.0
        return max(in_line_s, unanswered_s)

    def has_waiting(self) -> bool:
        """Whether anybody waits; those who have given up are removed from the front of the line."""
        while self._line and self._line[0][0].done():
            self._line.popleft()
        return bool(self._line)

    def call_next(self) -> None:
        """Give a place to the first in the line."""
        waiter, _ = self._line.popleft()
        self._places.take(self)
        waiter.set_result(None)

    def no_place(self) -> CallNotMade:
        """The error for a call that waited too long for a place."""
        return CallNotMade(
            f"{self._name} is busy: all calls that may be made at once are being made", reason="calls_at_once"
        )

    async def _take(self, longest_wait_s: float | None) -> None:
        if not self.has_waiting() and self._places.has_room_for(self):
            self._places.take(self)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((waiter, time.monotonic()))
        self._places.wait_in_line(self)
        try:
            async with asyncio.timeout(longest_wait_s):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():  # it was given a place at the very moment
                self._places.give_back(self)
            with suppress(asyncio.InvalidStateError):
                waiter.cancel()
            if isinstance(error, TimeoutError):
                raise self.no_place() from None
            raise

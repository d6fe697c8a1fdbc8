"""Memory that the decoders share: images that take more than a decoder has for each are decoded when there is room.

A decoder has `FIRST_BYTES` for any image at once. What an image takes beyond that comes from one budget, which follows
the control group's limit. The instances wait in turns, live images before bulk ones; the one whose turn it is waits
until there is room for it, so that small ones do not go past it for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from worker.supervision.turns import TakingTurns, Turn

_MEBIBYTE = 1 << 20

FIRST_BYTES = 128 * _MEBIBYTE
"""Memory that each decoder has for any image: enough for most of 12 megapixels, whatever their format."""


class TooLittleMemory(Exception):
    """There is less memory for all images together than one takes."""

    def __init__(self, total_bytes: int) -> None:
        super().__init__(f"{total_bytes >> 20} MiB")
        self.total_bytes = total_bytes


class MemoryBudget:
    """`total_bytes` is asked whenever memory is given out, as the limit of a control group may be changed."""

    def __init__(self, total_bytes: Callable[[], int]) -> None:
        self.total_bytes = total_bytes
        self._lent_bytes = 0
        self._live: TakingTurns[_Claim] = TakingTurns()
        self._bulk: TakingTurns[_Claim] = TakingTurns()

    def __len__(self) -> int:
        """How many images wait."""
        return len(self._live) + len(self._bulk)

    @property
    def lent_bytes(self) -> int:
        """What images have now."""
        return self._lent_bytes

    @asynccontextmanager
    async def lent(self, size_bytes: int, turn: Turn) -> AsyncIterator[None]:
        """Wait until there is room for so many bytes, and keep them for the block. Raises `TooLittleMemory`."""
        if size_bytes <= 0:
            yield
            return
        claim = _Claim(size_bytes, asyncio.get_running_loop().create_future())
        lane = self._bulk if turn.bulk else self._live
        lane.append(turn.instance, claim)
        self._grant()
        try:
            await claim.granted
        except asyncio.CancelledError:
            lane.remove(turn.instance, claim)
            if claim.granted.done() and not claim.granted.cancelled() and claim.granted.exception() is None:
                self._take_back(claim)
            else:
                self._grant()
            raise
        try:
            yield
        finally:
            self._take_back(claim)

    def _take_back(self, claim: _Claim) -> None:
        self._lent_bytes -= claim.size_bytes
        self._grant()

    def _grant(self) -> None:
        while len(self):
            lane = self._live or self._bulk
            claim, total_bytes = lane.head(), self.total_bytes()
            if claim.size_bytes > total_bytes:
                lane.pop()
                claim.refuse(TooLittleMemory(total_bytes))
                continue
            if self._lent_bytes + claim.size_bytes > total_bytes:
                return
            lane.pop()
            if not claim.granted.done():
                self._lent_bytes += claim.size_bytes
                claim.granted.set_result(None)


class _Claim:
    def __init__(self, size_bytes: int, granted: asyncio.Future[None]) -> None:
        self.size_bytes = size_bytes
        self.granted = granted

    def refuse(self, error: TooLittleMemory) -> None:
        if not self.granted.done():
            self.granted.set_exception(error)

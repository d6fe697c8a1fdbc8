"""How many fetches there may be at a time, shared fairly between those for whom they are made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from worker.errors import TryLater
from worker.supervision.shares import OVER_SHARE, Shares
from worker.supervision.turns import TakingTurns

_LONGEST_WAIT_S = 2.0


class Slot:
    """One slot of one holder; the block's end gives it back."""

    __slots__ = ("_holder", "_slots")

    def __init__(self, slots: FairSlots, holder: str) -> None:
        self._slots = slots
        self._holder = holder

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._slots.give_back(self._holder)


class FairSlots:
    """Slots that are waited for. The holders that wait take turns."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = Shares(total)
        self._clock = clock
        self._waiting: TakingTurns[tuple[str, asyncio.Future[None]]] = TakingTurns()

    async def take(self, holder: str, what: str) -> Slot:
        """Take a slot, which the end of its block gives back.

        Raises TryLater, uncounted, when others are known and the holder has not come below its share within two
        seconds. `what` is being waited for, in words.
        """
        now_s = self._clock()
        self._share.known.see(holder, now_s)
        if self._share.may_take(holder, now_s):
            self._share.take(holder)
        else:
            await self._wait_for(holder, what)
        return Slot(self, holder)

    def give_back(self, holder: str) -> None:
        """Give a slot back, to those that wait."""
        self._share.give_back(holder)
        self._serve_waiting()

    async def _wait_for(self, holder: str, what: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(holder, (holder, mine))
        waited = False
        try:
            while not mine.done() and (not waited or self._share.known.alone(self._clock())):
                await asyncio.wait({mine}, timeout=_LONGEST_WAIT_S)
                waited = True
        except asyncio.CancelledError:
            if mine.done():  # given in the very moment of the cancellation
                self.give_back(holder)
            else:
                self._waiting.remove(holder, (holder, mine))
            raise
        if not mine.done():
            self._waiting.remove(holder, (holder, mine))
            raise TryLater(
                f"{what} waits: {self._share.held(holder)} of {holder} are being fetched, which is its share of the "
                f"{self._share.total} at a time (`sources.concurrency`)",
                reason=OVER_SHARE,
                counted=False,
            )

    def _serve_waiting(self) -> None:
        """Give slots to those that wait, one holder after the other."""
        if not self._waiting:
            return
        now_s = self._clock()
        given = True
        while given:
            given = False
            for holder in self._waiting.owners:
                if self._share.may_take(holder, now_s):
                    self._share.take(holder)
                    self._waiting.pop(holder)[1].set_result(None)
                    given = True

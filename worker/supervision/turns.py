"""Whose image goes to a child next: live before bulk, and within either the instances in turn.

Bulk images begin only while no live image is waiting or in hand. While live images have been seen recently, bulk images
go to the children one at a time, so that a live one finds a free child and a free core when it comes; otherwise they
may fill the children's hands. A bulk image that has waited for very long goes first all the same, one a second at most:
live images that never pause must not hold it up for ever.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from worker.supervision.shares import Known

HOLD_S = 0.02
"""Bulk images begin no sooner after the last live one: it may be on its way from the decoders to the model."""

RECENT_S = 10.0
"""For so long after a live image another is expected."""

OVERDUE_S = 30.0
"""A bulk image that has waited for longer goes before the live ones."""

_OVERDUE_INTERVAL_S = 1.0
_LONGEST_PAUSE_S = 1.0
_PAUSE = 2.0
"""Times what a bulk image took: so only every third live image finds one at work, and their median notices none."""
_UNLIMITED = 1 << 30


@dataclass(frozen=True, slots=True)
class Turn:
    """On whose behalf something waits: the instance, and whether it is bulk work, which nobody waits for."""

    instance: str
    bulk: bool = False


OWN_TURN = Turn("default")
"""Of what no event asks for: an image of `autotag tag`, of the status page, of a measurement."""


class WaitingImage(Protocol):
    """An image that waits for a child."""

    queued_at_s: float
    """Monotonic."""

    @property
    def turn(self) -> Turn:
        """On whose behalf it waits."""
        ...

    @property
    def wanted(self) -> bool:
        """Whether the caller still waits for the answer."""
        ...


class Precedence:
    """Whether bulk images may begin now. Shared by the pools that one image goes through, one after the other.

    While live images are expected, at most `maximum_bulk` bulk images are in the children's hands.
    """

    def __init__(self, maximum_bulk: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._maximum_bulk = maximum_bulk
        self._clock = clock
        self._live = 0
        self._live_left_s = -math.inf
        self._bulk_began_s: dict[WaitingImage, float] = {}
        self._bulk_from_s = -math.inf
        self._held_up: dict[Callable[[], None], None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def present(self, item: WaitingImage) -> Iterator[None]:
        """An image waits for a child, or is in the hands of one, during the block."""
        if item.turn.bulk:
            try:
                yield
            finally:
                self._bulk_ends(item)
            return
        self._live += 1
        try:
            yield
        finally:
            self._live -= 1
            self._live_left_s = self._clock()
            if self._held_up and not self._live:
                self._wake_after(HOLD_S)

    @property
    def room_for_bulk(self) -> int:
        """How many bulk images may begin now."""
        now_s = self._clock()
        quiet_s = now_s - self._live_left_s
        if self._live or quiet_s < HOLD_S:
            return 0
        if quiet_s >= RECENT_S:
            return _UNLIMITED
        return 0 if now_s < self._bulk_from_s else max(0, self._maximum_bulk - len(self._bulk_began_s))

    def bulk_begins(self, item: WaitingImage) -> None:
        """A bulk image goes to a child."""
        self._bulk_began_s[item] = self._clock()

    def bulk_returns(self, item: WaitingImage) -> None:
        """A bulk image was put back: the child has not done it."""
        self._bulk_began_s.pop(item, None)

    def _bulk_ends(self, item: WaitingImage) -> None:
        """No bulk image begins for a while, if live ones are expected."""
        began_s = self._bulk_began_s.pop(item, None)
        if began_s is not None:
            now_s = self._clock()
            pause_s = min(_PAUSE * (now_s - began_s), _LONGEST_PAUSE_S)
            self._bulk_from_s = now_s + pause_s
            if self._held_up and not self._live:
                self._wake_after(pause_s if now_s - self._live_left_s < RECENT_S else 0.0)

    def call_when_bulk_may_begin(self, dispatch: Callable[[], None]) -> None:
        """Call `dispatch` once when that may have changed."""
        self._held_up[dispatch] = None
        self._wake_after(_OVERDUE_INTERVAL_S if self._live or self._bulk_began_s else HOLD_S)

    def _wake_after(self, delay_s: float) -> None:
        """Dispatch again after `delay_s`, or at the earlier time that has been arranged."""
        loop = asyncio.get_running_loop()
        when_s = loop.time() + delay_s
        if self._timer is not None:
            if self._timer.when() <= when_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        waiting, self._held_up = self._held_up, {}
        for dispatch in waiting:
            dispatch()


_W = TypeVar("_W", bound=WaitingImage)
_T = TypeVar("_T")


class TakingTurns(Generic[_T]):
    """Items of several owners: the owners take turns, and each owner's items keep their order."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[_T]] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def append(self, owner: str, item: _T) -> None:
        """Add an item behind the owner's others."""
        queue = self._queues.get(owner)
        if queue is None:
            queue = self._queues[owner] = deque()
        queue.append(item)
        self._number += 1

    def put_back(self, owner: str, item: _T) -> None:
        """Add an item before all others, the other owners' too."""
        queue = self._queues.pop(owner, None) or deque()
        queue.appendleft(item)
        self._queues = {owner: queue} | self._queues
        self._number += 1

    def bring_forward(self, owner: str) -> None:
        """Make it the turn of an owner who has items here."""
        self._queues = {owner: self._queues.pop(owner)} | self._queues

    def head(self) -> _T:
        """The next item. Raises StopIteration when there is none."""
        return next(iter(self._queues.values()))[0]

    @property
    def owners(self) -> tuple[str, ...]:
        """Those who have items here, in the order of their turns."""
        return tuple(self._queues)

    def pop(self, owner: str | None = None) -> _T:
        """Take the next item, or the first of an owner; that owner's turn comes again after all others'.

        Raises StopIteration, or KeyError, where there is none.
        """
        if owner is None:
            owner = next(iter(self._queues))
        queue = self._queues[owner]
        item = queue.popleft()
        self._number -= 1
        if not queue:
            del self._queues[owner]
        elif len(self._queues) > 1:
            self._queues[owner] = self._queues.pop(owner)
        return item

    def remove(self, owner: str, item: _T) -> bool:
        """Take out one item, if it is there."""
        queue = self._queues.get(owner)
        if queue is None or item not in queue:
            return False
        queue.remove(item)
        self._number -= 1
        if not queue:
            del self._queues[owner]
        return True

    def heads(self) -> Iterable[_T]:
        """The first item of each owner."""
        return (queue[0] for queue in self._queues.values())


class FairQueue(Generic[_W]):
    """Images that wait for the children of one pool. `dispatch` is called when bulk images that were held may begin."""

    def __init__(
        self, precedence: Precedence, dispatch: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._precedence = precedence
        self._dispatch = dispatch
        self._clock = clock
        self._live: TakingTurns[_W] = TakingTurns()
        self._bulk: TakingTurns[_W] = TakingTurns()
        self._overdue_from_s = 0.0
        self._for_being_overdue = False
        self._known = Known()

    def __len__(self) -> int:
        return len(self._live) + len(self._bulk)

    def append(self, item: _W) -> None:
        """Add an image behind the others of its instance."""
        self._known.see(item.turn.instance, item.queued_at_s)
        self._lane(item).append(item.turn.instance, item)

    @property
    def others_may_come(self) -> bool:
        """Whether several instances are known, so that no child should have many images of one in hand."""
        return not self._known.alone(self._clock())

    def put_back(self, items: Iterable[_W]) -> None:
        """Add images before all others of their lane, in their order: a child had them and has not done them."""
        for item in reversed(list(items)):
            if item.turn.bulk:
                self._precedence.bulk_returns(item)
            self._lane(item).put_back(item.turn.instance, item)

    def remove(self, item: _W) -> bool:
        """Take out an image that nobody waits for any more; False when it does not wait here."""
        return self._lane(item).remove(item.turn.instance, item)

    def drain(self) -> Iterator[_W]:
        """Take out all."""
        for lane in (self._live, self._bulk):
            while lane:
                yield lane.pop()

    def next_lane(self) -> tuple[TakingTurns[_W] | None, int]:
        """The lane whose turn it is, and how many of its images may begin now; None and 0 when none may.

        Ask again after each `take`.
        """
        self._for_being_overdue = False
        if not self._bulk:
            return (self._live, len(self._live)) if self._live else (None, 0)
        if (overdue := self._overdue_owner()) is not None:
            self._bulk.bring_forward(overdue)
            self._for_being_overdue = True
            return self._bulk, 1
        if self._live:
            return self._live, len(self._live)
        room = self._precedence.room_for_bulk
        if not room:
            self._precedence.call_when_bulk_may_begin(self._dispatch)
            return None, 0
        return self._bulk, min(room, len(self._bulk))

    def take(self, lane: TakingTurns[_W]) -> _W:
        """Take the next image of a lane given by `next_lane`."""
        item = lane.pop()
        if lane is self._bulk:
            self._precedence.bulk_begins(item)
            if self._for_being_overdue or self._clock() - item.queued_at_s > OVERDUE_S:
                self._for_being_overdue = False
                self._overdue_from_s = self._clock() + _OVERDUE_INTERVAL_S
        return item

    def _overdue_owner(self) -> str | None:
        """Whose bulk image has waited for very long, if one may go before the live ones now."""
        now_s = self._clock()
        if now_s < self._overdue_from_s:
            return None
        oldest = min(self._bulk.heads(), key=lambda item: item.queued_at_s)
        return oldest.turn.instance if now_s - oldest.queued_at_s > OVERDUE_S else None

    def _lane(self, item: _W) -> TakingTurns[_W]:
        return self._bulk if item.turn.bulk else self._live

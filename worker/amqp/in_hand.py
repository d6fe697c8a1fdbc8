"""What each instance may have in hand of a lane's prefetch, and for how long what is over that waits.

A queue is emptied from its head: were all that is in hand of one instance, whose images come slowly or which has
published thousands of them, the events of the others behind it would wait for those. So an event over its instance's
share is deferred: it goes to a retry queue before anything is done for it, and the next is looked at. While one
instance alone is known, named in the settings or seen within ten minutes, nothing is deferred.

Each instance's deferred events have a timetable. The first returns when what is in hand will have been done, each
further one later by the time that one event of the instance has taken lately, so that a backlog comes back at about
the rate at which it can be done. A timetable reaches a minute ahead, or further for a backlog of more than a few
thousand; what does not fit into it returns at its end and is deferred once more. Each worker has its own, and needs to
know nothing of the others: each sees a part of the events that is about its part of the work.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from worker.amqp.topology import Lane
from worker.errors import TryLater
from worker.supervision.shares import OVER_SHARE, Shares

_log = structlog.get_logger(__name__)

DEFERRALS_HEADER = "x-autotag-deferrals"
"""How often an event was deferred, because its instance was over its share."""

_RATE_OVER_S = 10.0
_LOWEST_RATE = 60.0
"""Also of an instance that gets nothing done: its events are looked at so often, at little cost."""
_OPTIMISM = 1.5
"""What comes back too early is deferred once more, which costs a millisecond; what comes too late leaves us idle."""

_SHORTEST_DELAY_S = 0.5
_SHORTEST_TIMETABLE_S = 60.0
_LONGEST_TIMETABLE_S = 600.0
_RETURNS_PER_S = 100.0
"""A timetable is long enough that no more than about this many a second return at its end."""

_BULK_INTERVAL_S = 0.05
"""Between two deferrals in the bulk lane, where nobody waits: a library of a million must not keep us busy."""

_LOG_INTERVAL_S = 30.0
_MAXIMUM_INSTANCES = 1000


def lane_prefetch(prefetch: int) -> dict[Lane, int]:
    """How many deliveries of each lane may be in hand: live all of `amqp.prefetch`, bulk a quarter of it."""
    return {Lane.LIVE: prefetch, Lane.BULK: max(1, prefetch // 4)}


class Deferred(TryLater):
    """An event that is over its instance's share: it returns after `after_s`, as the same attempt."""

    def __init__(self, message: str, *, after_s: float, deferrals: int) -> None:
        super().__init__(message, reason=OVER_SHARE, after_s=after_s, counted=False)
        self.deferrals = deferrals


@dataclass(slots=True)
class Timetable:
    """When the deferred events of one instance return. Pure: the time is an argument, in seconds."""

    _waiting: int = 0
    _seen_s: float = 0.0
    """When the last one was deferred, or returned."""
    _ended_s: deque[float] = field(default_factory=lambda: deque(maxlen=2000))
    _begun_s: float | None = None
    _next_s: float = 0.0

    def begins(self, now_s: float) -> None:
        """An event of the instance is begun."""
        if self._begun_s is None:
            self._begun_s = now_s

    def ended(self, now_s: float) -> None:
        """An event of the instance has ended."""
        self._ended_s.append(now_s)

    def returned(self, now_s: float) -> None:
        """A deferred event is back."""
        self._waiting, self._seen_s = max(0, self._waiting - 1), now_s

    def waiting(self, now_s: float) -> int:
        """How many were deferred and have not returned yet.

        They may return to another worker, which nobody reports here: once all must have returned, none waits.
        """
        if now_s > max(self._next_s, self._seen_s) + _LONGEST_TIMETABLE_S:
            self._waiting = 0
        return self._waiting

    def rate(self, now_s: float) -> float:
        """Events a second that could be done, by those that ended in the last ten seconds; rather too many."""
        since_s = max(now_s - _RATE_OVER_S, self._begun_s if self._begun_s is not None else now_s)
        while self._ended_s and self._ended_s[0] < now_s - _RATE_OVER_S:
            self._ended_s.popleft()
        if len(self._ended_s) == self._ended_s.maxlen:
            since_s = self._ended_s[0]
        return max(_LOWEST_RATE, _OPTIMISM * len(self._ended_s) / max(1.0, now_s - since_s))

    def defer(self, in_hand: int, now_s: float) -> float:
        """Give an event the next place; after how many seconds it returns. `in_hand`: how many the instance has."""
        self._waiting, self._seen_s = self.waiting(now_s) + 1, now_s
        rate = self.rate(now_s)
        longest_s = min(max(_SHORTEST_TIMETABLE_S, self._waiting / _RETURNS_PER_S), _LONGEST_TIMETABLE_S)
        at_s = max(self._next_s, now_s + max(_SHORTEST_DELAY_S, in_hand / rate / 2))
        if at_s - now_s >= longest_s:
            return longest_s
        self._next_s = at_s + 1 / rate
        return at_s - now_s


class Place:
    """The place of one event among those in hand; the block's end leaves it."""

    __slots__ = ("_clock", "_instance", "_share", "_timetable")

    def __init__(self, share: Shares, timetable: Timetable, instance: str, clock: Callable[[], float]) -> None:
        self._share = share
        self._timetable = timetable
        self._instance = instance
        self._clock = clock

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._share.give_back(self._instance)
        self._timetable.ended(self._clock())


class InHand:
    """The events in hand, by lane and instance. `on_deferred` is called with lane and instance for each deferral."""

    def __init__(
        self,
        prefetch: Mapping[Lane, int],
        on_deferred: Callable[[Lane, str], None] = lambda _lane, _instance: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shares = {lane: Shares(number) for lane, number in prefetch.items()}
        self._timetables: OrderedDict[tuple[Lane, str], Timetable] = OrderedDict()
        self._on_deferred = on_deferred
        self._clock = clock
        self._next_bulk_s = 0.0
        self._log_from_s: dict[tuple[Lane, str], float] = {}

    def know(self, instances: Iterable[str]) -> None:
        """The instances that the settings name."""
        named = frozenset(instances)
        for share in self._shares.values():
            share.known.named = named

    async def take(self, lane: Lane, instance: str, deferrals: int = 0) -> Place:
        """Count an event as in hand until its place is left. Raises Deferred if it is over its instance's share.

        `deferrals`: how often it was deferred before. What comes back goes before what is new.
        """
        now_s, share, timetable = self._clock(), self._shares[lane], self._timetable(lane, instance)
        for each in self._shares.values():  # an instance with work in one lane has claims in the other
            each.known.see(instance, now_s)
        if deferrals:
            timetable.returned(now_s)
        if not _has_room(share, timetable, instance, deferrals, now_s):
            if lane is Lane.BULK:
                await self._until_bulk_may_be_deferred()
            if not _has_room(share, timetable, instance, deferrals, self._clock()):
                raise self.deferred(lane, instance, deferrals)
        share.take(instance)
        timetable.begins(now_s)
        return Place(share, timetable, instance, self._clock)

    def deferred(self, lane: Lane, instance: str, deferrals: int) -> Deferred:
        """The error of an event that is over its instance's share, with the time at which it returns."""
        now_s, timetable = self._clock(), self._timetable(lane, instance)
        in_hand = self._shares[lane].held(instance)
        after_s = timetable.defer(in_hand, now_s)
        self._on_deferred(lane, instance)
        if now_s >= self._log_from_s.get((lane, instance), now_s):
            self._log_from_s[lane, instance] = now_s + _LOG_INTERVAL_S
            _log.info(
                "an instance is over its share; its further events wait in the retry queues",
                instance=instance,
                lane=lane.value,
                in_hand=in_hand,
                waiting=timetable.waiting(now_s),
            )
        return Deferred(
            f"{instance} has {in_hand} events in hand, which is its share of {self._shares[lane].total}",
            after_s=after_s,
            deferrals=deferrals + 1,
        )

    async def _until_bulk_may_be_deferred(self) -> None:
        now_s = self._clock()
        self._next_bulk_s = max(now_s, self._next_bulk_s + _BULK_INTERVAL_S)
        if self._next_bulk_s > now_s:
            await asyncio.sleep(self._next_bulk_s - now_s)

    def _timetable(self, lane: Lane, instance: str) -> Timetable:
        key = (lane, instance)
        found = self._timetables.get(key)
        if found is None:
            found = self._timetables[key] = Timetable()
            if len(self._timetables) > _MAXIMUM_INSTANCES:
                gone, _ = self._timetables.popitem(last=False)
                self._log_from_s.pop(gone, None)
        self._timetables.move_to_end(key)
        return found


def _has_room(share: Shares, timetable: Timetable, instance: str, deferrals: int, now_s: float) -> bool:
    new_beside_waiting = not deferrals and timetable.waiting(now_s) > 0
    return share.may_take(instance, now_s, part=0.5 if new_beside_waiting else 1.0)


def deferrals_of(header: object) -> int:
    """How often an event was deferred, by its header."""
    return header if isinstance(header, int) and not isinstance(header, bool) and header > 0 else 0

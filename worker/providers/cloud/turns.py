"""The turns of one account at its service: how many calls a second, and when an event that has none should come back.

The rate is kept by virtual scheduling (GCRA, ITU-T I.371): each call moves the time of the next one on, so that it is
known beforehand when a turn will come, and nobody has to wait for it in hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

_PROMISE_S = 10.0
"""An event that was promised a turn is expected this long; fetching and decoding its image may take a while."""

_SPARE = 1
"""Events that come back earlier than turns need them: a turn without an event is lost, an event can wait again."""


class Turns:
    """The turns of `calls_per_second`, at most one second's calls (and at least one) in a burst. Times are monotonic.

    A call serves up to `images_per_call` events. `delays_s` are the delays after which an event can come back.
    """

    def __init__(
        self, calls_per_second: float, *, longest_wait_s: float, delays_s: Sequence[float], images_per_call: int = 1
    ) -> None:
        self._interval_s = 1 / calls_per_second
        self._burst_s = (max(1.0, calls_per_second) - 1) * self._interval_s
        self._longest_wait_s = longest_wait_s
        self._images_per_call = images_per_call
        self._delays_s = sorted(set(delays_s))
        self._next_s = 0.0
        """When the next turn would come if there were no bursts."""
        self._promised: deque[float] = deque()
        """When each promise expires, in order."""
        self._away: dict[float, deque[float]] = {delay_s: deque() for delay_s in self._delays_s}
        """When the events that were sent away come back, by the delay that they were given."""

    def wait_s(self, now_s: float, ahead: int = 0) -> float:
        """How long until there is a turn after `ahead` further calls."""
        return max(0.0, max(self._next_s, now_s) + ahead * self._interval_s - self._burst_s - now_s)

    def take(self, now_s: float) -> float | None:
        """Take the next turn and return the wait for it; None, without a turn, if that is too long to wait here."""
        wait_s = self.wait_s(now_s)
        if wait_s > self._longest_wait_s:
            return None
        self._next_s = max(self._next_s, now_s) + self._interval_s
        return wait_s

    def give_back(self) -> None:
        """Return a turn that was not used."""
        self._next_s -= self._interval_s

    def promise(self, now_s: float) -> bool:
        """Whether an event that is begun now will get a turn in time; it is then expected for a while."""
        _drop_past(self._promised, now_s)
        if self.wait_s(now_s, len(self._promised) // self._images_per_call) > self._longest_wait_s:
            return False
        self._promised.append(now_s + _PROMISE_S)
        return True

    def keep_promises(self, images: int) -> None:
        """So many events have had their turn, or have been sent away."""
        for _ in range(min(images, len(self._promised))):
            self._promised.popleft()

    def worth_waiting_s(self, queued: int, now_s: float) -> float:
        """How long a call should wait for events on their way, of which `queued` are there, before a scarce turn."""
        _drop_past(self._promised, now_s)
        if queued >= min(self._images_per_call, len(self._promised)):
            return 0.0
        return min(1.0, self.wait_s(now_s, ahead=1))

    def come_back_s(self, now_s: float) -> float:
        """After which delay an event without a turn should come back.

        Each delay gets as many events as there are turns until the next longer one is over, and the longest gets the
        rest. So somebody is always there for the next turn, and an event comes back a few times, however many wait.
        """
        away = 0
        for delay_s, longer_s in pairwise(self._delays_s):
            back = self._away[delay_s]
            _drop_past(back, now_s)
            away += len(back)
            if away < longer_s / self._interval_s * self._images_per_call + _SPARE:
                back.append(now_s + delay_s)
                return delay_s
        return self._delays_s[-1] if self._delays_s else 0.0


def _drop_past(times_s: deque[float], now_s: float) -> None:
    while times_s and times_s[0] <= now_s:
        times_s.popleft()

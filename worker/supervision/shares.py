"""How much of something limited each of several holders may have at a time.

The scheme is the dynamic threshold of shared-memory switches (Choudhury and Hahne, 1998, "Dynamic queue length
thresholds for shared-memory packet switches"): a holder may have no more than is free. One holder beside others that
hold nothing has half, two have a third each, and there is always something left for the next one. Besides, each holder
may always have `GUARANTEED`, beyond the total if need be: however many others hold something, the next one is served.
"""

from __future__ import annotations

from collections import OrderedDict

GUARANTEED = 2
"""What each holder may have, however much is taken."""

KNOWN_FOR_S = 600.0
"""A holder that was seen is known for so long. While only one is known, it may have everything."""

OVER_SHARE = "over_share"
"""The reason for which something waits that is over its instance's share."""

_MAXIMUM_KNOWN = 1000


class Known:
    """Which holders there are: those that are named, and those seen within ten minutes. Pure."""

    def __init__(self) -> None:
        self.named: frozenset[str] = frozenset()
        """Holders that are known without having been seen."""
        self._seen_s: OrderedDict[str, float] = OrderedDict()

    def see(self, holder: str, now_s: float) -> None:
        """Note that there is such a holder."""
        self._seen_s[holder] = now_s
        self._seen_s.move_to_end(holder)
        if len(self._seen_s) > _MAXIMUM_KNOWN:
            self._seen_s.popitem(last=False)

    def alone(self, now_s: float) -> bool:
        """Whether at most one holder is known."""
        while self._seen_s and next(iter(self._seen_s.values())) <= now_s - KNOWN_FOR_S:
            self._seen_s.popitem(last=False)
        if len(self._seen_s) > 1 or len(self.named) > 1:
            return False
        return len(self.named.union(self._seen_s)) <= 1


class Shares:
    """What each of several holders may have of `total`. Pure: the time is an argument."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.known = Known()
        self._held: dict[str, int] = {}
        self._taken = 0

    def held(self, holder: str) -> int:
        """How many slots a holder has."""
        return self._held.get(holder, 0)

    def may_take(self, holder: str, now_s: float, *, part: float = 1.0) -> bool:
        """Whether a holder may have one more; beside others, within a `part` of its share."""
        held, free = self.held(holder), self.total - self._taken
        return held < GUARANTEED or (free > 0 if self.known.alone(now_s) else held < free * part)

    def take(self, holder: str) -> None:
        """Give a holder one more."""
        self._held[holder] = self.held(holder) + 1
        self._taken += 1

    def give_back(self, holder: str) -> None:
        """Take one back from a holder."""
        self._taken -= 1
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]

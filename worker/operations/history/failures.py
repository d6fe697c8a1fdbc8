"""What went wrong lately: one entry for each kind of trouble, however often it came.

A key that was refused fails every image in the same way. Told once, with a count and the last asset, it leaves room
for the truncated file that came in between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

MOST_FAILURES = 12


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of trouble and its last occurrence. `kind`: how the delivery ended, or `provider` for one of several.

    `who` names the provider, or is empty where the event as a whole is meant.
    """

    kind: str
    reason: str
    who: str
    message: str
    asset_id: str
    instance: str
    first_s: float
    last_s: float
    times: int = 1


class Failures:
    """The last kinds of trouble, the latest first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, str], Failure] = OrderedDict()

    def __iter__(self) -> Iterator[Failure]:
        return iter(reversed(list(self._kept.values())))

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, failure: Failure) -> None:
        """It happened, for the first time or once more."""
        key = failure.kind, failure.reason, failure.who
        earlier = self._kept.pop(key, None)
        if earlier is not None:
            failure = replace(failure, first_s=earlier.first_s, times=earlier.times + 1)
        self._kept[key] = failure
        if len(self._kept) > MOST_FAILURES:
            self._kept.popitem(last=False)

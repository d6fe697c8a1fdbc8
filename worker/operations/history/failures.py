"""Recent failures: one entry per kind of failure, however often it occurred.

A refused key fails every image in the same way. One entry with a count and the last asset leaves room for the
truncated file that came in between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from worker.amqp.delivery import Ending

MAXIMUM_FAILURES = 12

PROVIDER_FAILED: Final = "provider"
"""The kind of a failure of one provider, whatever became of the event."""

FailureKind = Ending | Literal["provider"]


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure and its last occurrence. `kind`: how the delivery ended, or PROVIDER_FAILED.

    `provider` is its name, or empty where the event as a whole is meant.
    """

    kind: FailureKind
    reason: str
    provider: str
    message: str
    asset_id: str
    instance: str
    first_s: float
    last_s: float
    times: int = 1


class Failures:
    """The last MAXIMUM_FAILURES kinds of failure, the most recent first."""

    def __init__(self) -> None:
        self._recent: OrderedDict[tuple[str, str, str], Failure] = OrderedDict()

    def __iter__(self) -> Iterator[Failure]:
        return iter(reversed(list(self._recent.values())))

    def __len__(self) -> int:
        return len(self._recent)

    def add(self, failure: Failure) -> None:
        """Count an occurrence; the entry becomes the most recent one."""
        key = failure.kind, failure.reason, failure.provider
        earlier = self._recent.pop(key, None)
        if earlier is not None:
            failure = replace(failure, first_s=earlier.first_s, times=earlier.times + 1)
        self._recent[key] = failure
        if len(self._recent) > MAXIMUM_FAILURES:
            self._recent.popitem(last=False)

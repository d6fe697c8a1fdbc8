"""The last published results, at a rate that a person can follow.

At full speed dozens of images are tagged every second. Only a few of them are kept, evenly spread: a list that has
changed three times before it is read is useless, and each thumbnail costs a decoder's time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from worker.messages import ImageFacts, ProviderReport, Tag

MAXIMUM_RESULTS = 12
MAXIMUM_TAGS = 6
MAXIMUM_TEXT_LENGTH = 300
"""Names and messages are truncated to this: an event may give an asset a name of a thousand characters."""

_EXTRA_THUMBNAILS = 12
"""A page that has just been rendered is about to request its thumbnails: those of replaced results must still exist."""

_BURST = float(MAXIMUM_RESULTS)
_PER_SECOND = 1.0


@dataclass(slots=True)
class Thumbnail:
    """The thumbnail of a result. `jpeg` (a few kilobytes) is set a moment after the result is published, or never."""

    number: int
    jpeg: bytes | None = None


@dataclass(frozen=True, slots=True)
class RecentResult:
    """One result. `tags` are the best few of `number_of_tags`."""

    at_s: float
    asset_id: str
    instance: str
    file_name: str | None
    status: str
    reason: str | None
    message: str | None
    tags: tuple[Tag, ...]
    number_of_tags: int
    providers: tuple[ProviderReport, ...]
    complete: bool
    image: ImageFacts | None
    took_s: float
    thumbnail: Thumbnail | None


class RecentResults:
    """The last results, newest first. A token bucket limits how many are admitted."""

    def __init__(self) -> None:
        self._recent: deque[RecentResult] = deque(maxlen=MAXIMUM_RESULTS + _EXTRA_THUMBNAILS)
        self._last_number = 0
        self._tokens = _BURST
        self._refilled_at_s: float | None = None

    def __iter__(self) -> Iterator[RecentResult]:
        return islice(reversed(self._recent), MAXIMUM_RESULTS)

    def __len__(self) -> int:
        return min(len(self._recent), MAXIMUM_RESULTS)

    def admit(self, now_s: float) -> Thumbnail | None:
        """A numbered thumbnail for a result at `now_s`, or None if results come too fast for people to follow."""
        if self._refilled_at_s is not None:
            self._tokens = min(_BURST, self._tokens + _PER_SECOND * (now_s - self._refilled_at_s))
        self._refilled_at_s = now_s
        if self._tokens < 1:
            return None
        self._tokens -= 1
        self._last_number += 1
        return Thumbnail(self._last_number)

    def add(self, result: RecentResult) -> None:
        """Keep a result that was admitted; the oldest one is dropped."""
        self._recent.append(result)

    def thumbnail(self, number: int) -> bytes | None:
        """The JPEG with this number, if its result is still kept and the thumbnail has been made."""
        for result in self._recent:
            if result.thumbnail is not None and result.thumbnail.number == number:
                return result.thumbnail.jpeg
        return None


def truncate(text: str) -> str:
    """The text, shortened to MAXIMUM_TEXT_LENGTH characters if it is longer."""
    return text if len(text) <= MAXIMUM_TEXT_LENGTH else f"{text[: MAXIMUM_TEXT_LENGTH - 1]}…"

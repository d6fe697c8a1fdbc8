"""The last results that went out, as far as a person could follow them.

At full speed dozens of images are answered in a second. Of those only a few are kept, evenly: a list that has changed
three times before it is read tells nothing, and the thumbnail of each costs a decoder's time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from worker.messages import ImageFacts, ProviderReport, Tag

MOST_RESULTS = 12
MOST_TAGS = 6
LONGEST_TEXT = 300
"""Names and messages are cut here: an event may give an asset a name of a thousand characters."""

_THUMBNAILS_OUTLIVE = 12
"""A page that has just been drawn names thumbnails that it is about to ask for: they must still be there then."""

_BURST = float(MOST_RESULTS)
_A_SECOND = 1.0


@dataclass(slots=True)
class Thumbnail:
    """The thumbnail of an answer, which comes a moment after it, or never. `jpeg`: a few kilobytes."""

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
    """The last of them, newest first."""

    def __init__(self) -> None:
        self._kept: deque[RecentResult] = deque(maxlen=MOST_RESULTS + _THUMBNAILS_OUTLIVE)
        self._numbers = 0
        self._room = _BURST
        self._filled_at_s: float | None = None

    def __iter__(self) -> Iterator[RecentResult]:
        return islice(reversed(self._kept), MOST_RESULTS)

    def __len__(self) -> int:
        return min(len(self._kept), MOST_RESULTS)

    def admit(self, now_s: float) -> Thumbnail | None:
        """A place for an answer that comes at `now_s`, or None when too many have come for anybody to follow."""
        if self._filled_at_s is not None:
            self._room = min(_BURST, self._room + _A_SECOND * (now_s - self._filled_at_s))
        self._filled_at_s = now_s
        if self._room < 1:
            return None
        self._room -= 1
        self._numbers += 1
        return Thumbnail(self._numbers)

    def add(self, answer: RecentResult) -> None:
        """Keep an answer that was admitted; the oldest goes."""
        self._kept.append(answer)

    def thumbnail(self, number: int) -> bytes | None:
        """The thumbnail with this number, if its answer is still here and it has been made."""
        for answer in self._kept:
            if answer.thumbnail is not None and answer.thumbnail.number == number:
                return answer.thumbnail.jpeg
        return None


def cut(text: str) -> str:
    """The text, or its beginning when it is very long."""
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"

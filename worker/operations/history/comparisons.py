"""What would change with another model: its tags beside those of the models in use, image by image.

The last thousand comparisons are kept, and counts of all. Pure: nothing is asked, published or timed here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from worker.messages import Tag
from worker.operations.history.results import Thumbnail, truncate

KEPT = 1000
_MOST_TERMS = 5000
_OTHERS = "(others)"
_EXAMPLES_WITH_THUMBNAILS = 12
_MOST_LISTED = 20

TagValues = Mapping[str, tuple[str, float]]
"""By concept, or name, of a tag: its name and confidence."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One image: tags that would be added, removed, and be the same, with the confidences of either."""

    asset_id: str
    instance: str
    added: tuple[tuple[str, float], ...]
    removed: tuple[tuple[str, float], ...]
    same: tuple[tuple[str, float, float], ...]
    keys: Mapping[str, tuple[str, ...]]
    """By `added`, `removed` and `same`: what each tag means."""
    thumbnail: Thumbnail | None = field(default=None, compare=False)

    @property
    def alike(self) -> bool:
        """Whether nothing would change but confidences."""
        return not self.added and not self.removed


@dataclass(slots=True)
class TermCount:
    """How often a tag would be added, removed, and be the same; `change`: of the confidence where it is the same."""

    name: str
    added: int = 0
    removed: int = 0
    same: int = 0
    change: float = 0.0


def compare(
    asset_id: str, instance: str, real: Iterable[Tag], candidate: Iterable[Tag], thumbnail: Thumbnail | None = None
) -> Comparison:
    """Compare the tags of one image. What is the same concept is the same tag, whatever it is called."""
    was, would_be = _values(real), _values(candidate)
    added = [key for key in would_be if key not in was]
    removed = [key for key in was if key not in would_be]
    same = [key for key in was if key in would_be]
    return Comparison(
        truncate(asset_id),
        instance,
        tuple(would_be[key] for key in added),
        tuple(was[key] for key in removed),
        tuple((was[key][0], was[key][1], would_be[key][1]) for key in same),
        {"added": tuple(added), "removed": tuple(removed), "same": tuple(same)},
        thumbnail,
    )


def _values(tags: Iterable[Tag]) -> TagValues:
    return {tag.concept or tag.name.casefold(): (truncate(tag.name), tag.confidence) for tag in tags}


class Comparisons:
    """Counts of all comparisons, and the last of them."""

    def __init__(self) -> None:
        self.compared = 0
        self.alike = 0
        self.skipped: Counter[str] = Counter()
        """Images that were not compared, by reason."""
        self.terms: dict[str, TermCount] = {}
        self._last: deque[Comparison] = deque(maxlen=KEPT)
        self._shown: deque[Comparison] = deque(maxlen=_EXAMPLES_WITH_THUMBNAILS)

    def add(self, comparison: Comparison) -> None:
        """Count one more."""
        self.compared += 1
        self.alike += comparison.alike
        for key, (name, _) in zip(comparison.keys["added"], comparison.added, strict=True):
            self._term(key, name).added += 1
        for key, (name, _) in zip(comparison.keys["removed"], comparison.removed, strict=True):
            self._term(key, name).removed += 1
        for key, (name, before, after) in zip(comparison.keys["same"], comparison.same, strict=True):
            term = self._term(key, name)
            term.same += 1
            term.change += after - before
        self._last.append(replace(comparison, thumbnail=None))  # a thumbnail has kilobytes
        if not comparison.alike:
            self._shown.append(comparison)

    def skip(self, reason: str) -> None:
        """An image was not compared."""
        self.skipped[reason] += 1

    @property
    def mean_change(self) -> float | None:
        """Of the confidence of tags that would be the same."""
        same = sum(term.same for term in self.terms.values())
        return sum(term.change for term in self.terms.values()) / same if same else None

    def most(self, change: str) -> list[TermCount]:
        """The terms most often `added` or `removed`, the most frequent first."""
        found = [term for term in self.terms.values() if getattr(term, change)]
        return sorted(found, key=lambda term: (-getattr(term, change), term.name))[:_MOST_LISTED]

    def examples(self) -> Iterator[Comparison]:
        """Of images whose tags would change, the newest first, each with other changes than those before."""
        seen: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
        for each in reversed(self._last):
            changes = (each.keys["added"], each.keys["removed"])
            if not each.alike and changes not in seen:
                seen.add(changes)
                yield each

    def shown(self) -> Iterator[Comparison]:
        """The last that differ, newest first, for the status page."""
        return reversed(self._shown)

    def thumbnail(self, number: int) -> bytes | None:
        """The JPEG with this number, if it is of one that is shown."""
        for each in self._shown:
            if each.thumbnail is not None and each.thumbnail.number == number:
                return each.thumbnail.jpeg
        return None

    def _term(self, key: str, name: str) -> TermCount:
        if key not in self.terms and len(self.terms) >= _MOST_TERMS:
            key = name = _OTHERS
        return self.terms.setdefault(key, TermCount(name))

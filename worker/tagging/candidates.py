"""What may become a tag: every suggestion as the rules read it, and the broader terms that the rules add. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from worker.providers.base import Suggestion
from worker.tagging.rules import Reading, Rules


@dataclass(frozen=True, slots=True)
class TagCandidate:
    """A suggestion, read by the rules. `because_of`: the label that the rules have added it to, if they have."""

    suggestion: Suggestion
    provider: str
    reading: Reading
    threshold: float | None
    because_of: str | None = None

    @property
    def reaches_threshold(self) -> bool:
        """Whether it is sure enough to be a tag."""
        return self.threshold is None or self.suggestion.confidence >= self.threshold

    @property
    def suppresses(self) -> bool:
        """Whether its model is sure enough that other groups are not what the picture is about."""
        return self.threshold is None or self.suggestion.suppressing >= self.threshold

    @property
    def rank(self) -> tuple[float, str, str, str]:
        """Its place among all: the surest first, ties by name."""
        suggestion = self.suggestion
        return (-suggestion.confidence, suggestion.name.casefold(), self.provider, self.because_of or "")


def candidates(
    suggestions: Iterable[Suggestion],
    provider: str,
    rules: Rules,
    threshold_of: Callable[[Suggestion], float | None],
    language: str,
    spoken: str | None,
) -> Iterator[TagCandidate]:
    """All of one provider, in no order. `threshold_of`: the provider's threshold, which one of the rules replaces.

    What the rules put above a label is as sure as the surest such label that reaches its threshold.
    """

    def read(suggestion: Suggestion, because_of: str | None = None) -> TagCandidate:
        reading = rules.read(suggestion, language, spoken)
        threshold = reading.threshold if reading.threshold is not None else threshold_of(suggestion)
        return TagCandidate(suggestion, provider, reading, threshold, because_of)

    added: dict[str, TagCandidate] = {}
    for suggestion in suggestions:
        candidate = read(suggestion)
        yield candidate
        if candidate.reaches_threshold:
            for above in rules.added_above(candidate.reading, suggestion.confidence):
                broader = read(above, suggestion.name)
                if above.name not in added or broader.rank < added[above.name].rank:
                    added[above.name] = broader
    yield from added.values()

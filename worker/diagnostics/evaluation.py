"""How good tags are, by photographs that people have labelled or corrected: behind `autotag evaluate`.

What is true is in `Labelled.judge`. A tag of which it is not known counts for nothing but the number of tags. Intervals
are Wilson's, at 95 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from worker.diagnostics.labelled import Labelled
from worker.diagnostics.reliability import Proportion, Reliability
from worker.messages import Result


@dataclass(frozen=True, slots=True)
class _Judged:
    provider: str
    model: str
    name: str
    true: bool


@dataclass(slots=True)
class Evaluation:
    """What was found so far; `add` adds one photograph's result."""

    photographs: int = 0
    failed: int = 0
    untagged: int = 0
    not_judged: int = 0
    """Tags of which it is not known whether they are true: their photographs have corrections only."""
    labelled: int = 0
    """Photographs with all that is true of them."""
    with_a_true_tag: int = 0
    """Of these."""
    reliability: Reliability = field(default_factory=Reliability)
    _tags: Counter[_Judged] = field(default_factory=Counter)

    def add(self, labelled: Labelled, result: Result) -> None:
        """Add one. A photograph that could not be tagged counts as failed, and for nothing else."""
        if result.status == "failed":
            self.failed += 1
            return
        models = {report.name: report.model or report.name for report in result.providers}
        judged = [(tag, labelled.judge(tag.concept, tag.name)) for tag in result.tags]
        self.photographs += 1
        self.untagged += not result.tags
        if labelled.complete:
            self.labelled += 1
            self.with_a_true_tag += any(true for _, true in judged)
        for tag, true in judged:
            if true is None:
                self.not_judged += 1
                continue
            self._tags[_Judged(tag.provider, models.get(tag.provider, tag.provider), tag.name, true)] += 1
            self.reliability.add(tag.confidence, true)

    @property
    def precision(self) -> Proportion:
        """How many of the tags are true."""
        return self._share(self._tags)

    @property
    def coverage(self) -> Proportion:
        """How many photographs have a true tag, of those of which all that is true is known."""
        return Proportion(self.with_a_true_tag, self.labelled)

    @property
    def tags_a_photograph(self) -> float | None:
        """Mean number of tags, judged or not."""
        return (self._tags.total() + self.not_judged) / self.photographs if self.photographs else None

    @property
    def by_provider(self) -> dict[str, Proportion]:
        """Precision of each."""
        return self._by(lambda tag: tag.provider)

    @property
    def by_model(self) -> dict[str, Proportion]:
        """Precision of each model, or version of a service's API, that tags came from."""
        return self._by(lambda tag: tag.model)

    @property
    def by_tag(self) -> dict[str, Proportion]:
        """Precision of each name, those that are wrong most often first."""
        found = self._by(lambda tag: tag.name)
        return dict(sorted(found.items(), key=lambda pair: (pair[1].true - pair[1].number, -pair[1].number, pair[0])))

    @property
    def calibration_error(self) -> float | None:
        """See `Reliability`."""
        return self.reliability.calibration_error

    def _by(self, what: Callable[[_Judged], str]) -> dict[str, Proportion]:
        groups: dict[str, list[_Judged]] = {}
        for tag in self._tags:
            groups.setdefault(what(tag), []).append(tag)
        return {each: self._share(groups[each]) for each in sorted(groups)}

    def _share(self, tags: Iterable[_Judged]) -> Proportion:
        true = number = 0
        for tag in tags:
            number += self._tags[tag]
            true += self._tags[tag] * tag.true
        return Proportion(true, number)

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        tags, error = self.tags_a_photograph, self.calibration_error
        return {
            "photographs": self.photographs,
            "failed": self.failed,
            "precision": self.precision.to_json(),
            "with_a_true_tag": self.coverage.to_json(),
            "tags_per_photograph": None if tags is None else round(tags, 3),
            "not_judged": self.not_judged,
            "untagged": self.untagged,
            "calibration_error": None if error is None else round(error, 4),
            "by_provider": {name: share.to_json() for name, share in self.by_provider.items()},
            "by_model": {name: share.to_json() for name, share in self.by_model.items()},
            "by_tag": {name: share.to_json() for name, share in self.by_tag.items()},
            "reliability": [{"confidence": round(mean, 4), **share.to_json()} for mean, share in self.reliability],
        }

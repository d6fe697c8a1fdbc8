"""Curves and thresholds for one model, by photographs that people have judged: behind `autotag calibrate`. Pure.

All that is known of the photographs is how many tags have a score and are true, so that the memory needed does not
grow with their number. What is said of a curve or a threshold is cross-validated: each photograph is judged by a curve
that was fitted on the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from worker.diagnostics.platt import IDENTITY, Judged, confidence_at, fit, place_of
from worker.diagnostics.reliability import Proportion, Reliability
from worker.models.manifest import Calibration, Curve

LEAST_SCORE_USED = 0.02
"""Scores below it are no evidence: nearly all such tags are false, and far from any threshold."""

FOLDS = 5
LEAST_JUDGED = 50
"""Judged tags from which on a curve is fitted."""
LEAST_TAGS = 20
"""Judged tags at and above a threshold that can be chosen: where all of 20 are true, the interval begins at 84 %."""

_STEPS = 100
"""Thresholds are hundredths."""


class Sort(StrEnum):
    """What a curve or a threshold holds for."""

    PARENT = "parent"
    LABEL = "label"
    ALONE = "alone"  # a label that nothing is above: its score is its confidence, whatever the curves


@dataclass(frozen=True, slots=True)
class Scored:
    """One name that a model suggests for a photograph. `depth`: how many concepts are above it."""

    sort: Sort
    score: float
    depth: int
    true: bool | None
    allowed: bool = True
    """False where the instance's rules let it be no tag."""


def _folds() -> dict[Sort, list[Judged]]:
    return {sort: [Counter() for _ in range(FOLDS)] for sort in Sort}


@dataclass(slots=True)
class Judgements:
    """What was judged so far; `add` adds one photograph."""

    maximum_parents: int
    photographs: int = 0
    judged: dict[Sort, list[Judged]] = field(default_factory=_folds)
    """By sort and fold: all that were judged."""
    tags: dict[Sort, list[Judged]] = field(default_factory=_folds)
    """By sort and fold: how many more tags there are with a threshold at this score than with one just above it."""

    def add(self, fold: int, suggested: Iterable[Scored]) -> None:
        """Add what is suggested for one photograph; the same photograph always has the same fold."""
        self.photographs += 1
        used = [each for each in suggested if each.score >= LEAST_SCORE_USED]
        for each in used:
            if each.true is not None:
                self.judged[each.sort][fold][place_of(each.score), each.true] += 1
                if each.allowed and each.sort is not Sort.PARENT:
                    self.tags[each.sort][fold][place_of(each.score), each.true] += 1
        self._add_parents(fold, [each for each in used if each.sort is Sort.PARENT and each.allowed])

    def number(self, sort: Sort) -> Proportion:
        """How many were judged, and how many are true."""
        together = sum(self.judged[sort], Counter())
        return Proportion(sum(number for (_, true), number in together.items() if true), together.total())

    def _add_parents(self, fold: int, parents: list[Scored]) -> None:
        """Only the narrowest of those above a threshold are tags: one that joins them may take another's place."""
        tags = self.tags[Sort.PARENT][fold]
        kept: list[Scored] = []
        for each in sorted(parents, key=lambda one: -one.score):
            place = place_of(each.score)
            narrowest = sorted([*kept, each], key=lambda one: -one.depth)[: self.maximum_parents]
            for one in narrowest:
                if one is each and each.true is not None:
                    tags[place, each.true] += 1
            for one in kept:
                if one.true is not None and not any(one is other for other in narrowest):
                    tags[place, one.true] -= 1
            kept = narrowest


@dataclass(frozen=True, slots=True)
class FittedCurve:
    """One curve as it was and as it is fitted, and how well each says what is true."""

    judged: Proportion
    before: Curve
    after: Curve
    reliability_before: Reliability
    reliability_after: Reliability
    """Cross-validated."""

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        sides = (("before", self.before, self.reliability_before), ("after", self.after, self.reliability_after))
        by_side: dict[str, object] = {
            name: {
                "slope": curve.slope,
                "offset": curve.offset,
                "calibration_error": reliability.calibration_error,
                "brier_score": reliability.brier_score,
            }
            for name, curve, reliability in sides
        }
        return {"judged": self.judged.to_json(), **by_side}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A threshold, and the share of true tags at and above it, cross-validated. `reached`: it is as many as wanted."""

    threshold: float
    precision: Proportion
    reached: bool = True

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        return {"after": self.threshold, "precision": self.precision.to_json(), "reached": self.reached}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The outcome. What could not be fitted, for too few judged tags, is missing, and stays as it is."""

    calibration: Calibration
    curves: Mapping[Sort, FittedCurve]
    confidence: Chosen | None
    specific: Chosen | None
    before: Proportion
    """The tags of the settings in effect that are true."""
    after: Proportion
    """Those of the new ones, cross-validated."""

    @property
    def reached(self) -> bool:
        """Whether there is a threshold that is precise enough, wherever one was looked for."""
        return all(chosen is None or chosen.reached for chosen in (self.confidence, self.specific))


def calibrated(
    judgements: Judgements, *, prior: Calibration, current: Calibration, thresholds: tuple[float, float], wanted: float
) -> Calibrated:
    """Fit the curves, and choose the lowest thresholds at which the `wanted` share of the tags is true.

    `prior`: the model's own curves; `current` and `thresholds` (confidence, specific): those in effect.
    """
    own = {Sort.PARENT: (prior.parent, current.parent), Sort.LABEL: (prior.label, current.label)}
    held_out = {Sort.ALONE: [IDENTITY] * FOLDS}
    curves: dict[Sort, FittedCurve] = {}
    for sort, (from_model, in_effect) in own.items():
        held_out[sort] = [in_effect] * FOLDS
        if judgements.number(sort).number >= LEAST_JUDGED:
            folds = judgements.judged[sort]
            held_out[sort] = [fit(_without(folds, fold), from_model) for fold in range(FOLDS)]
            after = fit(sum(folds, Counter()), from_model)
            curves[sort] = FittedCurve(
                judgements.number(sort),
                in_effect,
                after,
                _reliability(folds, [in_effect] * FOLDS),
                _reliability(folds, held_out[sort]),
            )
    general = _Tally.of(judgements, held_out, Sort.PARENT, Sort.ALONE)
    labels = _Tally.of(judgements, held_out, Sort.LABEL)
    confidence = general.lowest(wanted) if Sort.PARENT in curves else None
    least = confidence.threshold if confidence is not None else thresholds[0]
    specific = labels.lowest(wanted, max(least, 0.0)) if Sort.LABEL in curves else None
    as_before = {Sort.ALONE: [IDENTITY] * FOLDS} | {sort: [each] * FOLDS for sort, (_, each) in own.items()}
    above = specific.threshold if specific is not None else max(thresholds[1], least)
    return Calibrated(
        Calibration(
            label=curves[Sort.LABEL].after if Sort.LABEL in curves else current.label,
            parent=curves[Sort.PARENT].after if Sort.PARENT in curves else current.parent,
        ),
        curves,
        confidence,
        specific,
        before=_together(
            _Tally.of(judgements, as_before, Sort.PARENT, Sort.ALONE).from_on(thresholds[0]),
            _Tally.of(judgements, as_before, Sort.LABEL).from_on(max(thresholds)),
        ),
        after=_together(general.from_on(least), labels.from_on(above)),
    )


class _Tally:
    """How many tags there are from each threshold on, and how many of them are true."""

    def __init__(self) -> None:
        self._steps = [[0, 0] for _ in range(_STEPS + 1)]

    @classmethod
    def of(cls, judgements: Judgements, curves: Mapping[Sort, list[Curve]], *sorts: Sort) -> _Tally:
        """Of the tags of some sorts, each fold by its curve."""
        tally = cls()
        for sort in sorts:
            for judged, curve in zip(judgements.tags[sort], curves[sort], strict=True):
                for (place, true), number in judged.items():
                    step = tally._steps[_step(confidence_at(place, curve))]
                    step[0] += number * true
                    step[1] += number
        return tally

    def from_on(self, threshold: float) -> Proportion:
        """Of the tags at and above a threshold."""
        counted = self._steps[_step(threshold) :]
        return Proportion(sum(true for true, _ in counted), sum(number for _, number in counted))

    def lowest(self, wanted: float, least: float = 0.01) -> Chosen:
        """The lowest threshold that reaches what is wanted; if none does, the one that comes nearest."""
        choices = []
        for step in range(max(1, _step(least)), _STEPS):
            found = self.from_on(step / _STEPS)
            if found.number < LEAST_TAGS:
                break
            choices.append(Chosen(step / _STEPS, found, (found.value or 0) >= wanted))
        nearest = max(choices, key=lambda one: one.precision.value or 0, default=Chosen(1, Proportion(0, 0), False))
        return next((one for one in choices if one.reached), nearest)


def _step(confidence: float) -> int:
    """The highest threshold, in hundredths, that a confidence reaches; 0.29 * 100 is less than 29."""
    return int(confidence * _STEPS + 1e-9)


def _without(folds: list[Judged], left_out: int) -> Judged:
    return sum((judged for fold, judged in enumerate(folds) if fold != left_out), Counter())


def _reliability(folds: list[Judged], curves: list[Curve]) -> Reliability:
    found = Reliability()
    for judged, curve in zip(folds, curves, strict=True):
        for (place, true), number in judged.items():
            found.add(confidence_at(place, curve), true, number)
    return found


def _together(one: Proportion, other: Proportion) -> Proportion:
    return Proportion(one.true + other.true, one.number + other.number)

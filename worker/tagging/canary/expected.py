"""What the models are expected to say of the canary's picture, and whether they did.

Each model is judged by itself: what several say together hardly changes when one of them is wrong. Its own confidence
counts, by the curves of its manifest: those of an operator are no fault of a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from worker.models.manifest import ModelPackage
from worker.tagging.merge import Choice
from worker.vocabulary import ENGLISH, names

CAT = "wn:02121808-n"
"""The concept of what the picture shows."""

BANDS: Mapping[str, tuple[float, float]] = {
    "efficientnet-lite0": (0.90, 0.97),  # measured: 0.937
    "efficientnet-lite1": (0.93, 0.985),  # 0.967
    "efficientnet-lite2": (0.92, 0.98),  # 0.955
    "efficientnet-lite0-float": (0.90, 0.97),
    "efficientnet-lite1-float": (0.93, 0.985),
    "efficientnet-lite2-float": (0.91, 0.975),
    "nanodet-320": (0.65, 0.86),  # 0.768
    "nanodet-416": (0.50, 0.78),  # 0.645
}
"""Of each model that is built here, the lowest and the highest confidence in a cat. As wide as the same picture needs
that is stored at another quality; a test measures those that are built."""

TOLERANCE = 0.05
"""How far the confidence of any other model may be from that of its first canary. With the same files it is the same;
another processor or another version of a library moves it by less than 0.01."""


class CanaryFault(StrEnum):
    """What can be wrong with a canary."""

    WRONG_TAG = "wrong_tag"
    OUT_OF_BAND = "out_of_band"
    NO_ANSWER = "no_answer"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class ExpectedTag:
    """The term that a model should name, with a confidence from `low` to `high`. `term`: a concept's id, or a name.

    `term` None: it should name nothing.
    """

    term: str | None
    low: float
    high: float

    @property
    def name(self) -> str:
        """Of the term, for people."""
        if self.term is None:
            return "nothing"
        return names(ENGLISH).get(self.term, self.term)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one model said of the picture. `value`: its confidence in what was expected, 0 without any."""

    model: str
    expected: ExpectedTag
    value: float
    fault: CanaryFault | None
    best: str
    """What it is surest of, with the confidence, for people."""


def known_tag(package: ModelPackage) -> ExpectedTag | None:
    """Of a model that is built here; None for an operator's own, whose first canary says what is to be expected."""
    band = BANDS.get(package.manifest.name) if package.manifest.build is not None else None
    return ExpectedTag(CAT, *band) if band is not None else None


def first_tag(choices: Iterable[Choice], model: str) -> ExpectedTag:
    """What a model said the first time, to be compared with what it says later."""
    best = _best(choices, model)
    if best is None:
        return ExpectedTag(None, 0.0, TOLERANCE)
    return around(_term(best), best.confidence)


def around(term: str | None, confidence: float) -> ExpectedTag:
    """As far on either side as the tolerance."""
    return ExpectedTag(term, max(0.0, confidence - TOLERANCE), min(1.0, confidence + TOLERANCE))


def judge(choices: Iterable[Choice], model: str, expected: ExpectedTag) -> Finding:
    """Compare what one of several models said with what was expected of it."""
    choices = list(choices)
    best = _best(choices, model)
    of_term = [each for each in _of(choices, model) if expected.term in (None, _term(each))]
    value = max((each.confidence for each in of_term), default=0.0)
    fault = None
    if expected.term is not None and value < expected.low / 2:
        fault = CanaryFault.WRONG_TAG
    elif not expected.low <= value <= expected.high:
        fault = CanaryFault.OUT_OF_BAND
    surest = "nothing" if best is None else f"{best.label} {best.confidence:.3f}"
    return Finding(model, expected, value, fault, surest)


def _best(choices: Iterable[Choice], model: str) -> Choice | None:
    return max(_of(choices, model), key=lambda each: (each.confidence, _term(each)), default=None)


def _of(choices: Iterable[Choice], model: str) -> list[Choice]:
    return [each for each in choices if each.models == (model,)]


def _term(choice: Choice) -> str:
    return choice.concept or choice.label

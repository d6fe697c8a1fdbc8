"""From the models' scores to confidences: of their labels, and of the broader terms that are above them.

A score says how sure a model is among the labels it knows, of pictures like those it was trained with. A confidence
says how often such a tag is true on ordinary photographs. Each source has a curve of its own from one to the other,
which was fitted on photographs that people have judged (Platt scaling: a logistic curve over the score's logit). The
score of what is above several labels is their sum, as only one of them is true; of a detector's, which may all be, it
is the highest. What two models say counts as two witnesses: 1 - (1 - p)(1 - q). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from types import MappingProxyType

from worker.errors import Misconfigured
from worker.messages import TagKind
from worker.models.labels import Label
from worker.models.manifest import Calibration, Curve, Manifest, ModelKind
from worker.models.selection import LocalModels
from worker.vocabulary import ENGLISH, ancestors, concepts, names

LEAST_SCORE = 0.002
"""Labels below it do not count. With images100, sums from 0 and from 0.005 on give the same tags."""

_LEAST_ODDS = 1e-6

_KINDS: Mapping[ModelKind, TagKind] = {
    ModelKind.CLASSIFIER: "label",
    ModelKind.DETECTOR: "object",
    ModelKind.ATTRIBUTES: "image_kind",
}


@dataclass(frozen=True, slots=True)
class Term:
    """A word for what a picture shows. `concept`: its id, if it is one of ours; else only the name is known."""

    name: str
    concept: str | None = None


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure the models are of one term. `models`: the names of those that say so; `group`: what they are about.

    `specific`: it is a label that something broader is above. `suppresses`: groups that are left out where the model is
    sure that one of its labels is true, whichever: `suppressing`.
    """

    name: str
    concept: str | None
    value: float
    kind: TagKind = "label"
    specific: bool = False
    models: tuple[str, ...] = ()
    group: str = ""
    suppresses: tuple[str, ...] = ()
    suppressing: float = 0.0


class Meanings:
    """What the outputs of one model mean: its labels, in their order, and the terms above them."""

    def __init__(self, labels: Sequence[Label], manifest: Manifest, calibration: Calibration | None = None) -> None:
        """`calibration`: in place of the manifest's. Raises Misconfigured where that names what is not there."""
        self._model = manifest.name
        self._manifest = manifest
        self._kind = _KINDS[manifest.kind]
        self._above_kind: TagKind = "image_kind" if manifest.kind is ModelKind.ATTRIBUTES else "parent"
        self._combine = max if manifest.kind is ModelKind.DETECTOR else _sum
        curves = calibration or manifest.calibration
        self._of_label = curves.label if curves is not None else None
        self._of_parent = curves.parent if curves is not None else None
        self._check(labels)
        known = concepts()
        self._labels = [Term(label.name, self._concept_of(label, known)) for label in labels]
        self._above = [tuple(self._terms_above(term)) for term in self._labels]
        broader = {term.concept or term.name: term for above in self._above for term in above}
        self._above_others = [broader.get(term.concept or term.name) for term in self._labels]

    @property
    def classifies(self) -> bool:
        """Whether its labels are what tags are where broader terms are not wanted."""
        return self._manifest.kind is ModelKind.CLASSIFIER

    def __len__(self) -> int:
        return len(self._labels)

    def scored(self, scores: Iterable[tuple[int, float]]) -> tuple[Confidence, ...]:
        """The labels alone, with their scores as they are."""
        return tuple(self._confidence(self._labels[index], score, self._kind) for index, score in scores)

    def confidences(self, scores: Iterable[tuple[int, float]], least: float) -> tuple[Confidence, ...]:
        """Labels and broader terms with a confidence of at least `least`, in no order.

        `scores`: index and score of all labels from LEAST_SCORE on. A classifier's label that nothing is above has its
        score for confidence: there are too few of them to fit a curve. A label that is above others is one of the
        broader terms, and its own score is a part of it. Of a model that suppresses others the best label that is above
        none is among them, however unsure.
        """
        of_terms: dict[Term, float] = {}
        found: list[Confidence] = []
        if self._manifest.suppresses:
            scores = sorted(scores, key=lambda pair: -pair[1])
        for index, score in scores:
            above = self._above[index]
            for term in above:
                of_terms[term] = self._combine(of_terms.get(term, 0.0), score)
            if (itself := self._above_others[index]) is not None:
                of_terms[itself] = self._combine(of_terms.get(itself, 0.0), score)
                continue
            curve = self._of_label if above or not self.classifies else None
            value = confidence(score, curve)
            if value >= least or (self._manifest.suppresses and not found):
                specific = bool(above) and self.classifies
                found.append(self._confidence(self._labels[index], value, self._kind, specific=specific))
        for term, score in of_terms.items():
            value = confidence(min(score, 1.0), self._of_parent)
            if value >= least:
                is_seen = not self.classifies and term in self._above_others
                found.append(self._confidence(term, value, self._kind if is_seen else self._above_kind))
        if self._manifest.suppresses:
            total = confidence(min(sum(score for _, score in scores), 1.0), self._of_parent)
            found = [replace(each, suppressing=total) for each in found]
        return tuple(found)

    def _confidence(self, term: Term, value: float, kind: TagKind, *, specific: bool = False) -> Confidence:
        manifest = self._manifest
        models = (self._model,)
        return Confidence(term.name, term.concept, value, kind, specific, models, manifest.group, manifest.suppresses)

    def _concept_of(self, label: Label, known: Mapping[str, object]) -> str | None:
        """Classes of WordNet that are none of ours are ordinary: other models know more of them than we do."""
        concept = self._manifest.concepts.get(label.name, label.concept)
        return concept if concept in known else None

    def _terms_above(self, term: Term) -> Iterable[Term]:
        """All that are above a label, nearest first."""
        found: dict[Term, None] = {}
        left = [term]
        while left:
            one = left.pop(0)
            direct = [_term(word) for word in self._manifest.hierarchy.get(one.name, ())]
            direct += [_term(above) for above in (ancestors(one.concept) if one.concept is not None else ())]
            left += (each for each in direct if each not in found)
            found |= dict.fromkeys(direct)
        found.pop(term, None)
        return found

    def _check(self, labels: Sequence[Label]) -> None:
        manifest, known = self._manifest, concepts()
        named = {label.name for label in labels}
        if unknown := manifest.concepts.keys() - named:
            raise self._wrong(f"`concepts` names {min(unknown)!r}, which is not among its labels")
        terms = named.union(*manifest.hierarchy.values(), known)
        if unknown := manifest.hierarchy.keys() - terms:
            raise self._wrong(f"`hierarchy` names {min(unknown)!r}, which is neither a label nor above one")
        written = {label.concept for label in labels if label.concept is not None and label.wordnet_id is None}
        ids = written.union(manifest.concepts.values())
        ids |= {word for above in manifest.hierarchy.values() for word in above if ":" in word}
        if unknown := ids - known.keys():
            raise self._wrong(f"the vocabulary has no concept {min(unknown)!r}; `autotag vocabulary map` finds its ids")

    def _wrong(self, message: str) -> Misconfigured:
        return Misconfigured(f"model {self._model}: {message}", reason="model_manifest")


class AllMeanings:
    """What the outputs of all local models mean, numbered one model after another."""

    def __init__(self, models: LocalModels, calibration: Mapping[str, Calibration] = MappingProxyType({})) -> None:
        """`calibration`: the operator's, by model. Raises Misconfigured where a manifest names what is not there."""
        own = {named.identity: curves for name, curves in calibration.items() if (named := models.named(name))}
        self._meanings = [
            Meanings(package.described_labels, package.manifest, own.get(package.identity))
            for package in models.packages
        ]
        groups = {package.manifest.group for package in models.packages}
        for package in models.packages:
            if unknown := set(package.manifest.suppresses) - groups - {Manifest.model_fields["group"].default}:
                raise Misconfigured(
                    f"model {package.manifest.name}: `suppresses` names {min(unknown)!r}, which is no model's `group`",
                    reason="model_manifest",
                )

    def apart(self, scores: Iterable[tuple[int, float]], least: float) -> tuple[Confidence, ...]:
        """See `Meanings.confidences`: of each model by itself, a term as often as models say it."""
        parts = zip(self._meanings, self._parts(scores), strict=True)
        return tuple(each for meanings, part in parts for each in meanings.confidences(part, least))

    def scored(self, scores: Iterable[tuple[int, float]]) -> tuple[Confidence, ...]:
        """The classifiers' labels alone, with their scores as they are, best first."""
        parts = zip(self._meanings, self._parts(scores), strict=True)
        found = [each for meanings, part in parts if meanings.classifies for each in meanings.scored(part)]
        return tuple(sorted(found, key=lambda each: -each.value))

    def confidences(self, scores: Iterable[tuple[int, float]], least: float) -> tuple[Confidence, ...]:
        """See `Meanings.confidences`: of all models, each term once."""
        # What is below the threshold for one may be above it for two.
        each_least = least if len(self._meanings) == 1 else min(least, _LEAST_OF_TWO)
        parts = zip(self._meanings, self._parts(scores), strict=True)
        found = [each for meanings, part in parts for each in meanings.confidences(part, each_least)]
        return tuple(each for each in combined(found) if each.value >= least or each.suppressing >= least)

    def _parts(self, scores: Iterable[tuple[int, float]]) -> list[list[tuple[int, float]]]:
        """The scores of each model, with its own indices."""
        parts: list[list[tuple[int, float]]] = [[] for _ in self._meanings]
        place = start = 0
        end = len(self._meanings[0])
        for index, score in sorted(scores, key=itemgetter(0)):
            while index >= end:
                place, start = place + 1, end
                end += len(self._meanings[place])
            parts[place].append((index - start, score))
        return parts


_LEAST_OF_TWO = 0.05


def combined(found: Iterable[Confidence]) -> Iterable[Confidence]:
    """Each term once for each group: what several models say of it as one."""
    terms: dict[tuple[str, str], Confidence] = {}
    for each in found:
        key = (each.concept or each.name.casefold(), each.group)
        other = terms.get(key)
        terms[key] = each if other is None else _both(other, each)
    return terms.values()


def _both(one: Confidence, other: Confidence) -> Confidence:
    value = 1 - (1 - one.value) * (1 - other.value)
    models = one.models + tuple(name for name in other.models if name not in one.models)
    # What was found in the picture is more than a label, and a label more than something above others.
    first = min(one, other, key=lambda each: _RANK[each.kind])
    return replace(first, value=value, specific=one.specific and other.specific, models=models)


_RANK: Mapping[TagKind, int] = {"object": 0, "image_kind": 1, "label": 2, "parent": 3}


@lru_cache(maxsize=4096)  # one for all labels that it is above
def _term(word: str) -> Term:
    return Term(names(ENGLISH)[word], word) if word in concepts() else Term(word)


def _sum(one: float, other: float) -> float:
    return one + other


def confidence(score: float, curve: Curve | None) -> float:
    """The confidence that a score stands for: the logistic of slope · logit(score) + offset; itself without a curve."""
    if curve is None:
        return score
    within = min(max(score, _LEAST_ODDS), 1 - _LEAST_ODDS)
    # 1 / (1 + e^-x), in the form that never overflows
    return (1 + math.tanh((curve.slope * math.log(within / (1 - within)) + curve.offset) / 2)) / 2

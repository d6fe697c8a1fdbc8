"""What several providers suggest, made into one list of tags, with the reason for every suggestion left out.

Pure. The rules (`worker/tagging/rules.py`) are applied in this order: alias, closed vocabulary, threshold, kind of
picture, name in the language, rename, clean, drop, already on the asset, duplicates, the narrowest kind of picture, the
most parents, the cap. The caps come last and keep the best, so that no slot is lost to a tag that cannot be used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from worker.messages import Tag, TagKind
from worker.providers.base import Suggestion
from worker.settings import LabelRules
from worker.tagging.candidates import TagCandidate, candidates
from worker.tagging.rules import rules_of
from worker.vocabulary import ENGLISH, ancestors, concepts, names

# What a Liferay tag may not hold, and the length of its name column.
_REFUSED_BY_LIFERAY = dict.fromkeys(map(ord, "&'@\\]}:,=>/<[{%|+#`?\";*~\r\n"), " ")
_LONGEST_LIFERAY_TAG = 75


class Verdict(StrEnum):
    """What became of a suggestion."""

    KEPT = "kept"
    NOT_IN_VOCABULARY = "not_in_vocabulary"
    BELOW_THRESHOLD = "below_threshold"
    SUPPRESSED = "not_for_such_a_picture"
    BESIDE_NARROWER = "beside_a_narrower_kind"
    DROPPED = "dropped_by_rule"
    EMPTY = "empty_after_cleaning"
    ALREADY_ON_ASSET = "already_on_asset"
    DUPLICATE = "duplicate"
    OVER_MAXIMUM_PARENTS = "over_maximum_parents"
    OVER_MAXIMUM = "over_maximum"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which confidence on a provider's suggestions are tags, inclusive; None admits all.

    `specific`: for a label that has broader concepts, if it is higher. `maximum_parents`: None means no limit.
    """

    least: float | None = None
    specific: float | None = None
    maximum_parents: int | None = None

    def of(self, suggestion: Suggestion) -> float | None:
        """The threshold for one suggestion."""
        if self.specific is None or self.least is None or not suggestion.specific:
            return self.least
        return max(self.least, self.specific)


_ANY = Thresholds()

_SURE = 0.9
"""From this confidence on a kind of picture stands alone; below it its group is named too. Of 497 pictures that others
have made, 90 % have a kind or group that is true then; 83 % if a kind always stood alone, and 92 % if none did."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One suggestion's way: the provider's `label`, the `name` it was given by the rules, and the verdict."""

    label: str
    name: str
    confidence: float
    provider: str
    verdict: Verdict
    concept: str | None = None
    kind: TagKind = "label"
    language: str | None = None
    """Of the name, if it is the vocabulary's."""
    threshold: float | None = None
    models: tuple[str, ...] = ()
    threshold_of_rule: bool = False
    """The threshold is the instance's own for this label, not the provider's."""
    term: str | None = None
    """Of a closed vocabulary, for which the label stands."""
    because_of: str | None = None
    """The label that this is a broader term of, by a rule."""
    renamed: bool = False
    """By a rule."""
    agreeing: tuple[str, ...] = ()
    """Other providers that would have made it a tag too."""

    @property
    def meant(self) -> str | None:
        """The English name of the concept that the label means, where that is another word."""
        name = names(ENGLISH).get(self.concept) if self.concept is not None else None
        return name if name is not None and name.casefold() != self.label.casefold() else None


def choose(
    suggestions: Mapping[str, Iterable[Suggestion]],
    *,
    thresholds: Mapping[str, Thresholds],
    rules: LabelRules,
    existing_tags: Iterable[str] = (),
    maximum: int = 0,
    language: str = ENGLISH,
    by_concept: bool = False,
    spoken: Mapping[str, str] = MappingProxyType({}),
) -> list[Choice]:
    """Judge every suggestion, best first, with the broader terms that the rules add to those that reach a threshold.

    `suggestions` and `thresholds` are by provider name, as is `spoken`: the language of a provider's names, where it
    is known. Names are compared without regard to case; of equal names the highest confidence stays, and `by_concept`,
    or with a closed vocabulary, of equal concepts too, whichever provider names them. `maximum` 0 means no limit. What
    is a concept is named in `language`.
    """
    made = rules_of(rules, by_concept=by_concept)
    taken = {tag.strip().casefold() for tag in existing_tags}
    kept: dict[str, int] = {}
    choices: list[Choice] = []
    found = (
        each
        for provider, given in suggestions.items()
        for each in candidates(given, provider, made, thresholds.get(provider, _ANY).of, language, spoken.get(provider))
    )
    ranked = sorted(found, key=lambda one: one.rank)
    suppressed = {group for each in ranked if each.suppresses for group in each.suggestion.suppresses}
    for each in ranked:
        reading = each.reading
        name = _clean(reading.given, rules.clean)
        keys = [name.casefold()]
        if made.by_concept and reading.meaning is not None and reading.term is None:
            keys.append(reading.meaning)
        if not reading.wanted:
            verdict = Verdict.NOT_IN_VOCABULARY
        elif not each.reaches_threshold:
            verdict = Verdict.BELOW_THRESHOLD
        elif each.suggestion.group in suppressed:
            verdict = Verdict.SUPPRESSED
        elif reading.dropped or made.drops(name):
            verdict = Verdict.DROPPED
        elif not name:
            verdict = Verdict.EMPTY
        elif keys[0] in taken:
            verdict = Verdict.ALREADY_ON_ASSET
        elif (equal := next((kept[key] for key in keys if key in kept), None)) is not None:
            verdict = Verdict.DUPLICATE
            choices[equal] = _agreed(choices[equal], each.provider)
        else:
            verdict = Verdict.KEPT
            kept |= dict.fromkeys(keys, len(choices))
        choices.append(_choice(each, name, verdict, language))
    return _capped(choices, thresholds, maximum)


def _agreed(choice: Choice, provider: str) -> Choice:
    if provider == choice.provider or provider in choice.agreeing:
        return choice
    return replace(choice, agreeing=(*choice.agreeing, provider))


def _choice(each: TagCandidate, name: str, verdict: Verdict, language: str) -> Choice:
    reading = each.reading
    return Choice(
        each.suggestion.name,
        name,
        each.suggestion.confidence,
        each.provider,
        verdict,
        reading.concept,
        "parent" if each.because_of is not None else each.suggestion.kind,
        language if reading.has_the_vocabularys_name else None,
        each.threshold,
        each.suggestion.models,
        reading.threshold is not None,
        reading.term,
        each.because_of,
        reading.given != reading.named,
    )


def _capped(choices: list[Choice], thresholds: Mapping[str, Thresholds], maximum: int) -> list[Choice]:
    """The same choices, no more of them kept than may be: of each provider's parents, then of all."""
    kept = [place for place, choice in enumerate(choices) if choice.verdict is Verdict.KEPT]
    parents: dict[str, list[int]] = defaultdict(list)
    for place in kept:
        if choices[place].kind == "parent" and choices[place].concept is not None:  # the instance's own are exempt
            parents[choices[place].provider].append(place)
    capped = list(choices)
    sure = [choices[place] for place in kept if choices[place].confidence >= _SURE]
    covered = {above for choice in sure if choice.kind == "image_kind" for above in _above(choice)}
    for place in kept:
        is_group = choices[place].kind == "image_kind" and not _above(choices[place])
        if is_group and choices[place].concept in covered:
            capped[place] = replace(choices[place], verdict=Verdict.BESIDE_NARROWER)
    for provider, places in parents.items():
        most = thresholds.get(provider, _ANY).maximum_parents
        narrowest_first = sorted(places, key=lambda place: -len(_above(choices[place])))
        for place in narrowest_first[len(places) if most is None else most :]:
            capped[place] = replace(choices[place], verdict=Verdict.OVER_MAXIMUM_PARENTS)
    left = [place for place in kept if capped[place].verdict is Verdict.KEPT]
    for place in left[maximum or len(left) :]:
        capped[place] = replace(choices[place], verdict=Verdict.OVER_MAXIMUM)
    return capped


def _above(choice: Choice) -> tuple[str, ...]:
    return ancestors(choice.concept) if choice.concept in concepts() else ()


def tags_of(choices: Iterable[Choice]) -> tuple[Tag, ...]:
    """The suggestions that were kept, as tags: best first, ties by name."""
    return tuple(
        Tag(
            choice.name,
            choice.confidence,
            choice.provider,
            choice.concept,
            choice.kind,
            choice.language,
            choice.models if len(choice.models) > 1 else (),
        )
        for choice in choices
        if choice.verdict is Verdict.KEPT
    )


def _clean(name: str, how: str) -> str:
    if how == "liferay":
        name = name.translate(_REFUSED_BY_LIFERAY)[:_LONGEST_LIFERAY_TAG]
    return " ".join(name.split())

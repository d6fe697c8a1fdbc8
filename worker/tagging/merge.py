"""What several providers suggest, made into one list of tags, with the reason for every suggestion left out.

Pure. The rules are applied in this order: threshold, rename, clean, drop, already on the asset, duplicates, the cap.
The cap comes last and keeps the best, so that no slot is lost to a tag that cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from worker.messages import Tag
from worker.providers.base import Suggestion
from worker.settings import LabelsSettings

# What a Liferay tag may not hold, and the length of its name column.
_REFUSED_BY_LIFERAY = dict.fromkeys(map(ord, "&'@\\]}:,=>/<[{%|+#`?\";*~\r\n"), " ")
_LONGEST_LIFERAY_TAG = 75


class Verdict(StrEnum):
    """What became of a suggestion."""

    KEPT = "kept"
    BELOW_THRESHOLD = "below_threshold"
    DROPPED = "dropped_by_rule"
    EMPTY = "empty_after_cleaning"
    ALREADY_ON_ASSET = "already_on_asset"
    DUPLICATE = "duplicate"
    OVER_MAXIMUM = "over_maximum"


@dataclass(frozen=True, slots=True)
class Choice:
    """One suggestion's way: the provider's `label`, the `name` it was given by the rules, and the verdict."""

    label: str
    name: str
    confidence: float
    provider: str
    verdict: Verdict


def choose(
    suggestions: Mapping[str, Iterable[Suggestion]],
    *,
    thresholds: Mapping[str, float | None],
    rules: LabelsSettings,
    existing_tags: Iterable[str] = (),
    maximum: int = 0,
) -> list[Choice]:
    """Judge every suggestion, best first.

    `suggestions` and `thresholds` are by provider name; a threshold is inclusive and None admits all. Names are
    compared without regard to case; of equal names the highest confidence stays. `maximum` 0 means no limit.
    """
    renames = {label.casefold(): name for label, name in rules.rename.items()}
    drops = {label.casefold() for label in rules.drop}
    taken = {tag.strip().casefold() for tag in existing_tags}
    seen: set[str] = set()
    choices: list[Choice] = []
    ranked = sorted(
        ((suggestion, provider) for provider, given in suggestions.items() for suggestion in given),
        key=lambda pair: (-pair[0].confidence, pair[0].name.casefold(), pair[1]),
    )
    for suggestion, provider in ranked:
        name = _clean(renames.get(suggestion.name.casefold(), suggestion.name), rules.clean)
        key = name.casefold()
        threshold = thresholds.get(provider)
        if threshold is not None and suggestion.confidence < threshold:
            verdict = Verdict.BELOW_THRESHOLD
        elif suggestion.name.casefold() in drops or key in drops:
            verdict = Verdict.DROPPED
        elif not name:
            verdict = Verdict.EMPTY
        elif key in taken:
            verdict = Verdict.ALREADY_ON_ASSET
        elif key in seen:
            verdict = Verdict.DUPLICATE
        elif maximum and len(seen) >= maximum:
            verdict = Verdict.OVER_MAXIMUM
        else:
            verdict = Verdict.KEPT
            seen.add(key)
        choices.append(Choice(suggestion.name, name, suggestion.confidence, provider, verdict))
    return choices


def tags_of(choices: Iterable[Choice]) -> tuple[Tag, ...]:
    """The suggestions that were kept, as tags: best first, ties by name."""
    return tuple(
        Tag(name=choice.name, confidence=choice.confidence, provider=choice.provider)
        for choice in choices
        if choice.verdict is Verdict.KEPT
    )


def _clean(name: str, how: str) -> str:
    if how == "liferay":
        name = name.translate(_REFUSED_BY_LIFERAY)[:_LONGEST_LIFERAY_TAG]
    return " ".join(name.split())

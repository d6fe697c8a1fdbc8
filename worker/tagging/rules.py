"""What an instance's rules make of one label: its concept, its name as a tag, its threshold, and why it is none.

The same for every provider: a label whose word means a concept is treated as that concept. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from worker.providers.base import Suggestion
from worker.settings import LabelRules
from worker.tagging.own_words import OwnWords
from worker.vocabulary import ENGLISH
from worker.vocabulary.own_terms import OwnTerms, concept_or_none

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Reading:
    """A label as the rules read it.

    `meaning`: its concept, or the instance's own term, by which equal tags are one; `concept`: what a result calls it.
    `named`: its name before it is renamed, and `given` after. `term`: of a closed vocabulary, for which it stands.
    `threshold`: the rules' own for it. `wanted`: the vocabulary is open, or it has a term.
    """

    meaning: str | None
    concept: str | None
    named: str
    given: str
    term: str | None = None
    threshold: float | None = None
    wanted: bool = True
    dropped: bool = False

    @property
    def has_the_vocabularys_name(self) -> bool:
        """Whether it is named as its concept is in the language."""
        return self.concept is not None and self.term is None and self.given == self.named


class _ByWord(Generic[_Value]):
    """A table of rules, by the words as they are written and by what they mean."""

    def __init__(self, table: Mapping[str, _Value], own: OwnTerms) -> None:
        self._by_word = {word.casefold(): value for word, value in table.items()}
        self._by_meaning = {one: value for word, value in table.items() if (one := own.meaning(word)) is not None}

    def get(self, words: tuple[str, ...], meaning: str | None) -> _Value | None:
        """The value for the first of these words that has one, else for what they mean."""
        for word in words:
            if (found := self._by_word.get(word.casefold())) is not None:
                return found
        return self._by_meaning.get(meaning) if meaning is not None else None


class Rules:
    """The rules of one instance, made ready. `by_concept`: what a provider names is matched with concepts."""

    def __init__(self, rules: LabelRules, *, by_concept: bool) -> None:
        self.by_concept = by_concept or bool(rules.only)
        self._own = OwnTerms(rules.alias, rules.parents, by_concept=self.by_concept)
        self._words = OwnWords(rules.only, self._own) if rules.only else None
        self._rename = _ByWord(rules.rename, self._own)
        self._thresholds = _ByWord(rules.thresholds, self._own)
        self._drop = _ByWord(dict.fromkeys(rules.drop, True), self._own)

    @property
    def unknown_terms(self) -> list[str]:
        """Terms of a closed vocabulary that mean no concept."""
        return self._words.unknown if self._words is not None else []

    def read(self, suggestion: Suggestion, language: str = ENGLISH, spoken: str | None = None) -> Reading:
        """What a label is by the rules, named in `language`. `spoken`: in which the provider names it, if known."""
        label = suggestion.name
        meanings = self._meanings(suggestion, spoken)
        meaning = meanings[0] if len(meanings) == 1 else None
        if self._words is None:
            term = None
            named = self._name(suggestion, meaning, language)
            renamed = self._rename.get((label, named), meaning)
        else:
            term = self._words.term_for(label, meanings)
            named = term if term is not None else self._name(suggestion, meaning, language)
            # By the term alone: by another name for something narrower, a tag would be none of the terms.
            renamed = self._rename.get((term,), self._own.meaning(term)) if term is not None else None
        given = named if renamed is None else renamed
        of_term = self._own.meaning(term) if term is not None else None
        threshold = self._thresholds.get((label,), meaning)
        if threshold is None:
            threshold = self._thresholds.get((named,), of_term)
        dropped = self._drop.get((label, named, given), meaning) or self._drop.get((), of_term)
        own_concept = suggestion.concept is not None and suggestion.concept == meaning
        return Reading(
            meaning,
            suggestion.concept if own_concept else concept_or_none(meaning),
            named,
            given,
            term,
            threshold,
            wanted=self._words is None or term is not None,
            dropped=bool(dropped),
        )

    def drops(self, name: str) -> bool:
        """Whether a tag of this name is never assigned."""
        return self._drop.get((name,), None) is not None

    def added_above(self, reading: Reading, confidence: float) -> Iterator[Suggestion]:
        """The broader terms that the rules add to a label, with its confidence."""
        for one in self._own.added_above(reading.meaning) if reading.meaning is not None else ():
            yield Suggestion(self._own.name(one), confidence, concept_or_none(one))

    def _meanings(self, suggestion: Suggestion, spoken: str | None) -> tuple[str, ...]:
        if suggestion.concept is not None and not self._own.has(suggestion.name):
            return (suggestion.concept,)
        return self._own.meanings_of_label(suggestion.name, spoken)

    def _name(self, suggestion: Suggestion, meaning: str | None, language: str) -> str:
        if meaning is None or (language == ENGLISH and not self.by_concept and suggestion.concept == meaning):
            return suggestion.name
        return self._own.name(meaning, language)


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """Rules, compared by identity: they hold tables, and have no hash."""

    rules: LabelRules

    def __hash__(self) -> int:
        return id(self.rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.rules is self.rules


def rules_of(rules: LabelRules, *, by_concept: bool) -> Rules:
    """The rules of an instance's settings, kept for the next image."""
    return _made(_Same(rules), by_concept)


@lru_cache(maxsize=256)
def _made(same: _Same, by_concept: bool) -> Rules:
    return Rules(same.rules, by_concept=by_concept)

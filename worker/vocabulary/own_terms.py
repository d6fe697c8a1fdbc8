"""What an instance's own words mean: its aliases, and the broader terms that it has put above ours. Pure.

A broader term that is no concept of ours has an id here that begins with `own:` and never leaves the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from worker.vocabulary import ENGLISH, concepts, names
from worker.vocabulary.lookup import broader_than, concept_with_id, concepts_meant, meanings, meanings_in_rules

_OWN = "own:"


class OwnTerms:
    """Our concepts, with the `alias` and `parents` of an instance over them.

    `by_concept`: any word is looked up, not only the instance's own ones.
    """

    def __init__(
        self, alias: Mapping[str, str], parents: Mapping[str, Sequence[str]], *, by_concept: bool = True
    ) -> None:
        self._by_concept = by_concept
        self._names: dict[str, str] = {}
        self._meaning: dict[str, str] = {}
        broader = sorted(one for above in parents.values() for one in above)
        for word in (*broader, *sorted(parents)):  # of two spellings always the same is shown
            self._meaning[word.casefold()] = self._ours_or_own(word)
        terms = dict(self._meaning)
        self.unknown_aliases: list[str] = []
        """Aliases of a word that means no concept, or more than one."""
        for word, target in alias.items():
            found = terms.get(target.casefold()) or _only_one(target)
            if found is None:
                self.unknown_aliases.append(word)
            else:
                self._meaning[word.casefold()] = found
        self._added: dict[str, tuple[str, ...]] = {}
        for word, above in parents.items():
            node = self._meaning[word.casefold()]
            added = (*self._added.get(node, ()), *(self._meaning[one.casefold()] for one in above))
            self._added[node] = tuple(dict.fromkeys(added))
        self._above: dict[str, tuple[str, ...]] = {}
        self.cycle = self._find_cycle()
        """The way from a word back to itself, in names; empty where there is none, as it must be to ask for more."""

    def _ours_or_own(self, word: str) -> str:
        found = _only_one(word)
        if found is None:
            found = _OWN + word.casefold()
            self._names.setdefault(found, word)
        return found

    def meaning(self, word: str) -> str | None:
        """The one concept or own term that a word of a rule means; None where there is none, or more than one."""
        if (own := self._meaning.get(word.casefold())) is not None:
            return own
        if self._by_concept:
            return _only_one(word)
        return concept_with_id(word)

    def meanings_of_term(self, term: str) -> tuple[str, ...]:
        """All that a term of a closed vocabulary means, in any language."""
        if (own := self._meaning.get(term.casefold())) is not None:
            return (own,)
        return concepts_meant(term)

    def meanings_of_label(self, label: str, language: str | None) -> tuple[str, ...]:
        """All that a provider's label may mean, to those who speak a language and English."""
        if (own := self._meaning.get(label.casefold())) is not None:
            return (own,)
        return meanings(label, language) if self._by_concept else ()

    def has(self, word: str) -> bool:
        """Whether a word is one of the instance's own."""
        return word.casefold() in self._meaning

    def above(self, one: str) -> tuple[str, ...]:
        """All that is broader, narrowest first."""
        if one not in self._above:
            found = dict.fromkeys(self._directly_above(one))
            for each in tuple(found):
                found |= dict.fromkeys(self.above(each))
            self._above[one] = tuple(sorted(found, key=lambda each: -len(self.above(each))))
        return self._above[one]

    def added_above(self, one: str) -> tuple[str, ...]:
        """What the instance itself has put above one, or above what is above it."""
        return tuple(dict.fromkeys(added for each in (one, *self.above(one)) for added in self._added.get(each, ())))

    def broader_than(self, word: str) -> str | None:
        """The concept of which a word names something narrower."""
        return broader_than(word) if self._by_concept else None

    def name(self, one: str, language: str = ENGLISH) -> str:
        """A concept's name in a language, or an own term as it was written."""
        return self._names.get(one) or names(language).get(one) or names(ENGLISH).get(one, one)

    def _directly_above(self, one: str) -> Iterator[str]:
        if one in concepts():
            yield from concepts()[one].parents
        yield from self._added.get(one, ())

    def _find_cycle(self) -> tuple[str, ...]:
        if not self._added:
            return ()
        graph = {one: set(concept.parents) for one, concept in concepts().items()}
        for one, above in self._added.items():
            graph.setdefault(one, set()).update(above)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return tuple(self.name(one) for one in reversed(error.args[1]))
        return ()


def concept_or_none(one: str | None) -> str | None:
    """A concept; None for an own term."""
    return None if one is not None and one.startswith(_OWN) else one


def _only_one(word: str) -> str | None:
    found = meanings_in_rules(word)
    return found[0] if len(found) == 1 else None

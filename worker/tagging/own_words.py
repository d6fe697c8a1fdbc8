"""A closed vocabulary: the only terms that an instance wants for tags, and which of them a label stands for. Pure.

A term means the concepts that have its id or name, in any language, or an alias. A label stands for the term of its own
concept, or of the narrowest one above that has one: of `cat` where the customer has no `tabby`.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.vocabulary.own_terms import OwnTerms

_NO_OWN_TERMS = OwnTerms({}, {})


class OwnWords:
    """The terms of one instance."""

    def __init__(self, terms: Sequence[str], own: OwnTerms = _NO_OWN_TERMS) -> None:
        self._own = own
        self._by_name = {term.casefold(): term for term in terms}
        self._by_concept: dict[str, str] = {}
        self.unknown: list[str] = []
        """Terms that mean no concept: a provider may still suggest them by that name."""
        for term in terms:
            meant = own.meanings_of_term(term)
            for one in meant:
                self._by_concept.setdefault(one, term)
            if not meant:
                self.unknown.append(term)

    def term_for(self, name: str, meant: Sequence[str]) -> str | None:
        """The term that a label stands for, if there is one. `meant`: what it may mean, which then has to agree."""
        if (named := self._by_name.get(name.casefold())) is not None:
            return named
        if not meant:
            broader = self._own.broader_than(name)
            return self._term_of(broader) if broader is not None else None
        found = {self._term_of(one) for one in meant}
        return found.pop() if len(found) == 1 else None

    def _term_of(self, one: str) -> str | None:
        return next((self._by_concept[each] for each in (one, *self._own.above(one)) if each in self._by_concept), None)

"""What rules for tags cannot mean: aliases of nothing, broader terms in a circle, a vocabulary that nothing is in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from worker.settings.label_rules import LabelRules
from worker.vocabulary.lookup import concept_with_id, looks_like_an_id, meanings_in_rules, similar_names
from worker.vocabulary.own_terms import OwnTerms


def impossible_rules(rules: LabelRules, *, by_concept: bool, names_of_others: bool) -> Iterator[tuple[str, str]]:
    """Each rule that cannot be followed: its field, and what is wrong, in words.

    `by_concept`: what a provider names is matched with concepts. `names_of_others`: there is a provider whose labels
    need not be concepts, so that a vocabulary of unknown words may be meant.
    """
    own = OwnTerms(rules.alias, rules.parents, by_concept=by_concept or bool(rules.only))
    yield from _aliases(rules, own)
    for field in ("thresholds", "parents"):
        for word in getattr(rules, field):
            yield from _unknown_id(field, word)
    for above in rules.parents.values():
        for word in above:
            yield from _unknown_id("parents", word)
    for field in ("rename", "thresholds"):
        yield from _said_twice(field, getattr(rules, field), own)
    if own.cycle:
        yield "parents", f"go in a circle: {' > '.join(own.cycle)}; take one of them out"
    elif rules.only and not names_of_others and not any(own.meanings_of_term(term) for term in rules.only):
        hints = [f"{term} ({', '.join(similar_names(term)) or 'nothing is like it'})" for term in rules.only[:3]]
        yield (
            "only",
            f"none of its {len(rules.only)} terms means a concept, so nothing would ever be a tag; see `autotag "
            f"vocabulary map`. Like what there is: {'; '.join(hints)}",
        )


def _aliases(rules: LabelRules, own: OwnTerms) -> Iterator[tuple[str, str]]:
    for word, target in rules.alias.items():
        if concept_with_id(word) is not None:
            yield "alias", f"{word!r} is a concept's id: an alias is a word"
        if word in own.unknown_aliases:
            meant = meanings_in_rules(target)
            near = ", ".join(similar_names(target)) if not meant else ""
            what = f"means several concepts: {', '.join(meant)}" if meant else "is no concept's id or name"
            yield "alias", f"{word!r} = {target!r}: {target!r} {what}" + (f"; like {near}" if near else "")
    yield from _said_twice("alias", rules.alias, None)


def _unknown_id(field: str, word: str) -> Iterator[tuple[str, str]]:
    if looks_like_an_id(word) and concept_with_id(word) is None:
        yield field, f"no concept has the id {word}"


def _said_twice(field: str, table: Mapping[str, object], own: OwnTerms | None) -> Iterator[tuple[str, str]]:
    """Two words for one thing, by which it has two values: which of them counts would be chance."""
    first: dict[str, tuple[str, object]] = {}
    for word, value in table.items():
        one = (own.meaning(word) if own is not None else None) or word.casefold()
        other, its_value = first.setdefault(one, (word, value))
        if its_value != value:
            yield field, f"{other!r} and {word!r} are the same, and have {its_value!r} and {value!r}"

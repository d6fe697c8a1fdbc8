"""Which concepts a word means, that somebody has written: an id, a name in any language, or an alias."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import cache

from worker.models.labels import IMAGENET, read_labels
from worker.vocabulary import ENGLISH, concepts, languages, names
from worker.vocabulary.aliases import aliases

_WORDNET = re.compile(r"n\d{8}")
_ID = re.compile(r"(?:wn|node|coco|kind):\S+")
_SUGGESTIONS = 3


def concept_with_id(word: str) -> str | None:
    """The concept that a word is the id of: ours, or WordNet's."""
    if word in concepts():
        return word
    one = f"wn:{word[1:]}-n" if _WORDNET.fullmatch(word) else ""
    return one if one in concepts() else None


def looks_like_an_id(word: str) -> bool:
    """Whether a word is written as ids are, known or not."""
    return bool(_WORDNET.fullmatch(word) or _ID.fullmatch(word))


def concepts_meant(word: str) -> tuple[str, ...]:
    """The concepts that a word may mean: none, one, or those of the same name in a language."""
    if (one := concept_with_id(word)) is not None:
        return (one,)
    return _named().get(word.casefold()) or tuple(_of_same_meaning().get(word.casefold(), ()))


def meanings_in_rules(word: str) -> tuple[str, ...]:
    """The concepts that a word may mean in a rule: those of the name in English, else in any language, or an alias."""
    if (one := concept_with_id(word)) is not None:
        return (one,)
    word = word.casefold()
    others = (*_named().get(word, ()), *_of_same_meaning().get(word, ()))
    return _named_in(ENGLISH).get(word) or tuple(dict.fromkeys(others))


def meanings(word: str, language: str | None = None) -> tuple[str, ...]:
    """The concepts that a label means, by a provider that speaks a language and English; None: any language.

    What it means in English comes first: a name, else an alias. None is found for a word that names something narrower
    than a concept.
    """
    if (one := concept_with_id(word)) is not None:
        return (one,)
    word = word.casefold()
    english = _named_in(ENGLISH).get(word) or _of_same_meaning().get(word)
    if english or word in _of_narrower_meaning():
        return english or ()
    of_model = _named_by_imagenet().get(word, ())
    if of_model and not names(ENGLISH)[of_model[0]].startswith(f"{word} ("):  # "orange" is a colour too
        return of_model
    spoken = languages() if language is None else (language,)
    found = (one for each in spoken if each in languages() for one in _named_in(each).get(word, ()))
    return tuple(dict.fromkeys(found))


def broader_than(word: str) -> str | None:
    """The concept of which a word names something narrower that is no concept: `cat` for "kitten"."""
    return _of_narrower_meaning().get(word.casefold())


def similar_names(word: str) -> list[str]:
    """Names and aliases of concepts that are written much like a word that means none."""
    return difflib.get_close_matches(word.casefold(), [*_named(), *_of_same_meaning()], _SUGGESTIONS)


@cache
def _named() -> Mapping[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for name, ids in _named_by_imagenet().items():  # some have another name there, which people know from the model
        found[name] |= dict.fromkeys(ids)
    for language in languages():
        for one, name in names(language).items():
            found[name.casefold()][one] = None
    return {name: tuple(ids) for name, ids in found.items()}


@cache
def _named_by_imagenet() -> Mapping[str, tuple[str, ...]]:
    return {
        label.name.casefold(): (one,)
        for label in read_labels(IMAGENET)
        if (one := f"wn:{str(label.wordnet_id)[1:]}-n") in concepts()
    }


@cache
def _named_in(language: str) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for one, name in names(language).items():
        found[name.casefold()][one] = None
    return {name: tuple(ids) for name, ids in found.items()}


@cache
def _of_same_meaning() -> Mapping[str, tuple[str, ...]]:
    return {word.casefold(): (each.concept,) for each in aliases() for word in each.same}


@cache
def _of_narrower_meaning() -> Mapping[str, str]:
    return {word.casefold(): each.concept for each in aliases() for word in each.narrower}

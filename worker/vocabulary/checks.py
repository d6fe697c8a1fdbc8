"""What can be wrong with a vocabulary whose files can be read: each problem is a sentence that says what to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from worker.errors import Misconfigured
from worker.vocabulary import ENGLISH, FOLDER, ConceptKind, concepts, languages, names
from worker.vocabulary.aliases import ALIASES, aliases

if TYPE_CHECKING:
    from collections.abc import Iterator


def problems(folder: Path = FOLDER) -> list[str]:
    """Everything that is wrong, concepts first, then each language, then aliases. Empty where nothing is."""
    try:
        found = [*_parents(folder), *_without_parent(folder)]
    except Misconfigured as error:
        return [str(error)]
    for language in languages(folder):
        try:
            found += _names(language, folder)
        except Misconfigured as error:
            found.append(str(error))
    try:
        found += _aliases(folder)
    except Misconfigured as error:
        found.append(str(error))
    return found


def _parents(folder: Path) -> Iterator[str]:
    known = concepts(folder)
    for concept in known.values():
        for parent in concept.parents:
            if parent not in known:
                yield f"concepts.tsv: {concept.id} has the unknown parent {parent}; mend nodes.txt and make it again"
    try:
        TopologicalSorter({concept.id: concept.parents for concept in known.values()}).prepare()
    except CycleError as error:
        yield f"concepts.tsv: parents in a circle: {' > '.join(error.args[1])}; take one of them out in nodes.txt"


def _without_parent(folder: Path) -> Iterator[str]:
    file = folder / "without_parent.txt"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} cannot be read as UTF-8 text: {error}") from error
    rows = [line.partition("|") for line in lines if line.strip() and not line.startswith("#")]
    listed = {one.strip(): reason.strip() for one, _, reason in rows}
    given = Counter(listed.values())
    alone = {
        concept.id
        for concept in concepts(folder).values()
        if concept.kind in {ConceptKind.LABEL, ConceptKind.OBJECT} and not concept.parents
    }
    for one in sorted(alone - listed.keys()):
        yield f"{file.name}: {one} has no parent; put it below a node in nodes.txt, or list it with the reason"
    for one in sorted(listed.keys() - alone):
        yield f"{file.name}: {one} has a parent or is unknown; remove the line"
    for one, reason in listed.items():
        if not reason or given[reason] > 1:
            yield f"{file.name}: {one} needs a reason of its own, after a `|`"


def _names(language: str, folder: Path) -> Iterator[str]:
    file = f"names/{language}.txt"
    known, named = concepts(folder), names(language, folder)
    missing = [one for one in known if one not in named]
    if missing:
        yield f"{file}: {len(missing)} concepts have no name: {', '.join(missing[:5])}{' …' * (len(missing) > 5)}"
    having = defaultdict(list)
    for one, name in named.items():
        having[name.casefold()].append(one)
    for name, ids in having.items():
        # A detector's class may mean what a label or node means: then they are one tag.
        others = [one for one in ids if known[one].kind is not ConceptKind.OBJECT]
        if len(others) > 1 or len(ids) - len(others) > 1:
            yield f"{file}: {name!r} names {', '.join(ids)}; add to one of them what sets it apart"


def _aliases(folder: Path) -> Iterator[str]:
    known, english = concepts(folder), names(ENGLISH, folder)
    named = {name.casefold(): one for one, name in english.items()}
    of_word: dict[str, str] = {}
    listed: set[str] = set()
    for each in aliases(folder):
        if each.concept not in known:
            yield f"{ALIASES}: no concept has the id {each.concept}; mend or remove the line"
            continue
        if each.concept in listed:
            yield f"{ALIASES}: {each.concept} has two lines; make them one"
        listed.add(each.concept)
        if each.name != english.get(each.concept):
            yield f"{ALIASES}: {each.concept} is {english.get(each.concept)!r}, not {each.name!r}; mend the line"
        for word in (*each.same, *each.narrower):
            if (other := named.get(word.casefold())) is not None:
                yield f"{ALIASES}: {word!r} of {each.concept} is the name of {other}; remove it"
            elif (first := of_word.setdefault(word.casefold(), each.concept)) != each.concept:
                yield f"{ALIASES}: {word!r} is of {first} and of {each.concept}; remove one of them"
        if len({word.casefold() for word in (*each.same, *each.narrower)}) < len(each.same) + len(each.narrower):
            yield f"{ALIASES}: {each.concept} has a word twice; remove one of them"

"""The vocabulary: concepts with stable ids, their parents, and their names in each language.

Data files beside this module, read when first asked for and kept. `concepts.tsv` is made by scripts/make_vocabulary.py;
`names/LANGUAGE.txt` are written by hand, and a new language is one file. docs/tags.md says how they are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from worker.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = Path(__file__).parent

ENGLISH = "en"
"""The language of the names by which people write rules, and of those that a model or service gives."""


class ConceptKind(StrEnum):
    """Where a concept comes from."""

    LABEL = "label"  # one of ImageNet's 1,000
    NODE = "node"  # what several labels have in common
    OBJECT = "object"  # one of COCO's 80
    IMAGE_KIND = "image_kind"  # what kind of picture it is


@dataclass(frozen=True, slots=True)
class Concept:
    """What a tag means, whatever the language."""

    id: str
    kind: ConceptKind
    parents: tuple[str, ...]


@cache
def concepts(folder: Path = FOLDER) -> Mapping[str, Concept]:
    """All concepts by id; the labels are in the order of the built-in models' outputs. Raises Misconfigured."""
    file = folder / "concepts.tsv"
    found: dict[str, Concept] = {}
    for number, cells in _lines(file):
        try:
            concept = Concept(cells[0], ConceptKind(cells[1]), tuple(cells[2].split()) if len(cells) > 2 else ())
        except (IndexError, ValueError) as error:
            raise Misconfigured(f"{file}, line {number}: write id, kind and parents, separated by tabs") from error
        if concept.id in found:
            raise Misconfigured(f"{file}, line {number}: {concept.id} is there twice; remove one of the lines")
        found[concept.id] = concept
    return found


@cache
def ancestors(concept: str) -> tuple[str, ...]:
    """All concepts above one, nearest first."""
    found = dict.fromkeys(concepts()[concept].parents)
    for parent in tuple(found):
        found |= dict.fromkeys(ancestors(parent))
    return tuple(found)


@cache
def languages(folder: Path = FOLDER) -> tuple[str, ...]:
    """The languages that there are names in, as ISO 639 codes, in order."""
    return tuple(sorted(file.stem for file in (folder / "names").glob("*.txt")))


def language_of(locale: str | None, otherwise: str) -> str:
    """The language of a locale such as `de-CH` or `pt_BR`, if there are names in it; else `otherwise`."""
    language = (locale or "").replace("_", "-").partition("-")[0].strip().lower()
    return language if language in languages() else otherwise


@cache
def names(language: str, folder: Path = FOLDER) -> Mapping[str, str]:
    """The name of each concept in one language, by id. Raises Misconfigured."""
    file = folder / "names" / f"{language}.txt"
    found: dict[str, str] = {}
    for number, cells in _lines(file):
        if len(cells) != 2 or not all(cell and cell == cell.strip() for cell in cells):
            raise Misconfigured(f"{file}, line {number}: write an id and its name, separated by one tab")
        one, name = cells
        if one not in concepts(folder):
            raise Misconfigured(f"{file}, line {number}: no concept has the id {one}; see {folder / 'concepts.tsv'}")
        if one in found:
            raise Misconfigured(f"{file}, line {number}: {one} has a name already; remove one of the lines")
        found[one] = name
    return found


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.split("\t")

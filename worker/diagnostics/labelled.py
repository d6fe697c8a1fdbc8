"""Photographs of which people have said what is true: a CSV file, or corrections as JSON lines, read row by row.

A file is read twice: once to find every mistake in it before anything is tagged, then while it is tagged. Neither
keeps the rows, so that the memory needed does not grow with the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from worker.diagnostics.text_files import lines_of, rows_of_csv
from worker.errors import Misconfigured
from worker.messages.corrections import Correction
from worker.vocabulary import ancestors, concepts
from worker.vocabulary.lookup import concepts_meant

JSON_ENDINGS = (".jsonl", ".ndjson")
MISSING_SHOWN = 10
UNKNOWN_KEPT = 1000
"""More labels than these that are no concepts are not counted: nobody reads them."""

_COLUMNS = {"label": "labels", "kept": "kept", "added": "added", "removed": "removed"}
"""What the name of a column begins with, and what is in it."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One photograph, and what is true of it: ids of concepts, and names, without regard to case, that are none.

    `complete`: what is not among the true ones is false. Else only the false ones are, and the rest is not known.
    """

    file: Path
    true_concepts: frozenset[str]
    true_names: frozenset[str]
    false_concepts: frozenset[str] = frozenset()
    false_names: frozenset[str] = frozenset()
    complete: bool = True
    line: int = 0

    def judge(self, concept: str | None, name: str) -> bool | None:
        """Whether a tag is true; None if that is not known. One that is no concept of ours is looked up by its name.

        A tag is true if it is named as true or is above what is; else false if it is named as false or is below what
        is. So a broader term that was taken away beside a narrower one that stayed is true all the same.
        """
        meant = (concept,) if concept is not None else concepts_meant(name)
        if name.casefold() in self.true_names or any(one in self.true_concepts for one in meant):
            return True
        if self.complete or name.casefold() in self.false_names:
            return False
        known = (one for one in meant if one in concepts())
        return False if any(self.false_concepts.intersection((one, *ancestors(one))) for one in known) else None


def read_labelled(path: Path, folder: Path) -> Iterator[Labelled]:
    """The rows of a file, whose pictures' names are relative to `folder`. docs/tags.md says what is in it.

    Raises Misconfigured, with the line, for a file that is not so.
    """
    rows = _corrections(path) if path.suffix.lower() in JSON_ENDINGS else _rows(path)
    for line, row in rows:
        if not (row.labels or row.kept or row.added or row.removed):
            raise Misconfigured(f"{path}, line {line}: it has no label, and no tag that was kept, added or removed")
        true_concepts, true_names = _meant(row.labels + row.kept + row.added, with_broader=True)
        false_concepts, false_names = _meant(row.removed, with_broader=False)
        yield Labelled(
            folder / row.file, true_concepts, true_names, false_concepts, false_names, bool(row.labels), line
        )


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file of labelled photographs without mistakes, all of which are there. Iterating reads it again."""

    path: Path
    folder: Path
    rows: int
    unknown: tuple[str, ...]
    """Labels that are no concepts, `UNKNOWN_KEPT` at most."""

    @classmethod
    def checked(cls, path: Path, folder: Path, on_row: Callable[[int], object] = lambda _: None) -> LabelledFile:
        """Read all of it, and look for every picture. Raises Misconfigured; `on_row` is called with the rows so far."""
        rows = 0
        missing: list[Labelled] = []
        number_missing = 0
        unknown: dict[str, None] = {}
        for each in read_labelled(path, folder):
            rows += 1
            if not os.path.isfile(each.file):  # Path.is_file raises for a name that is too long
                number_missing += 1
                missing += [each] if number_missing <= MISSING_SHOWN else []
            if len(unknown) < UNKNOWN_KEPT:
                unknown |= dict.fromkeys(sorted(each.true_names | each.false_names))
            on_row(rows)
        if not rows:
            raise Misconfigured(f"{path} has no rows")
        if missing:
            listed = [f"  {each.file} (line {each.line})" for each in missing]
            listed += [f"  and {number_missing - len(missing):,} more"] if number_missing > len(missing) else []
            head = f"{path}: {number_missing:,} of {rows:,} files are not there; name their folder with --folder"
            raise Misconfigured("\n".join([head, *listed]))
        return cls(path, folder, rows, tuple(unknown)[:UNKNOWN_KEPT])

    def __iter__(self) -> Iterator[Labelled]:
        """The photographs."""
        return read_labelled(self.path, self.folder)


def _rows(path: Path) -> Iterator[tuple[int, Correction]]:
    """The rows of a CSV file: columns `file`, and any of `label…`, `kept…`, `added…`, `removed…`; others are ignored.

    A cell may have several, separated by `|`.
    """
    rows = rows_of_csv(path, "file")
    _, heading = next(rows)
    place = heading.index("file")
    kinds = [next((kind for begin, kind in _COLUMNS.items() if name.startswith(begin)), None) for name in heading]
    if not any(kinds):
        raise Misconfigured(f"{path}: its first line has to name one or more of `label…`, `kept`, `added`, `removed`")
    for line, cells in rows:
        if not cells[place]:
            raise Misconfigured(f"{path}, line {line}: it has no file")
        found: dict[str, list[str]] = {}
        for kind, cell in zip(kinds, cells, strict=True):
            if kind is not None:
                found.setdefault(kind, []).extend(each.strip() for each in cell.split("|") if each.strip())
        yield line, Correction(file=cells[place], **{kind: tuple(terms) for kind, terms in found.items()})


def _corrections(path: Path) -> Iterator[tuple[int, Correction]]:
    for line, text in lines_of(path):
        if not text.strip():
            continue
        try:
            yield line, Correction.model_validate_json(text)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
            key = ".".join(map(str, problem["loc"]))
            raise Misconfigured(f"{path}, line {line}: {key + ': ' if key else ''}{problem['msg']}") from error


def _meant(terms: Iterable[str], *, with_broader: bool) -> tuple[frozenset[str], frozenset[str]]:
    """The concepts that terms mean, perhaps with those above them, and the terms that mean none."""
    found: set[str] = set()
    names: set[str] = set()
    for term in terms:
        meant = concepts_meant(term)
        found.update(meant)
        if with_broader:
            found.update(above for one in meant for above in ancestors(one))
        if not meant:
            names.add(term.casefold())
    return frozenset(found), frozenset(names)

"""Words that are no names of ours and mean a concept all the same, or something narrower: `aliases.txt`, by hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from worker.errors import Misconfigured
from worker.vocabulary import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

ALIASES = "aliases.txt"


@dataclass(frozen=True, slots=True)
class Aliases:
    """The words of one concept; `name` is its English name, for those who read the file."""

    concept: str
    name: str
    same: tuple[str, ...]
    narrower: tuple[str, ...]
    """What is named by these is of this concept, and no concept itself."""


@cache
def aliases(folder: Path = FOLDER) -> tuple[Aliases, ...]:
    """All lines of the file. Raises Misconfigured."""
    return tuple(_lines(folder / ALIASES))


def _lines(file: Path) -> Iterator[Aliases]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) not in (3, 4):
            raise Misconfigured(f"{file}, line {number}: write id | English name | words | words for what is narrower")
        yield Aliases(cells[0], cells[1], _words(cells[2]), _words(cells[3]) if len(cells) > 3 else ())


def _words(cell: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in cell.split(",") if word.strip())

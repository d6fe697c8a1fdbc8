"""Which tags of an asset are added and which are removed. Pure.

A tag that people have set is never removed. One of ours that they have removed does not come back. What we do not know
to be ours counts as theirs, so that without a memory of what was written there are only additions.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Merge:
    """What is to be done to one asset, and what is to be remembered once it is done."""

    add: tuple[str, ...]
    """Best first, as they are wanted."""
    remove: tuple[str, ...]
    """As the target spells them."""
    mine_after: tuple[str, ...]
    """Our tags that stand afterwards."""
    removed_by_people: tuple[str, ...]
    """Our tags that people have removed, now or earlier: they stay away."""

    @property
    def is_write(self) -> bool:
        """Whether anything is to be written."""
        return bool(self.add or self.remove)


def folded(name: str) -> str:
    """What two spellings of one tag have in common: neither case, nor composed characters, nor spaces matter.

    Canonical caseless matching, Unicode 16.0 section 3.13.5.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", " ".join(name.split())).casefold())


def merge(
    current: Iterable[str],
    mine_before: Iterable[str],
    wanted: Iterable[str],
    removed_by_people: Iterable[str],
    *,
    complete: bool,
) -> Merge:
    """Compare what stands in the target with what was ours and what is wanted now.

    An incomplete result only adds: what it lacks, a provider may still suggest.
    """
    standing: dict[str, list[str]] = {}
    for name in current:
        standing.setdefault(folded(name), []).append(name)
    ours, desired = _by_fold(mine_before), _by_fold(wanted)
    stays_away = _by_fold(removed_by_people)
    for fold, name in ours.items():
        if fold not in standing:
            stays_away.setdefault(fold, name)
    add = {fold: name for fold, name in desired.items() if fold not in standing and fold not in stays_away}
    kept, remove = [], []
    for fold, name in ours.items():
        spelling = _spelling_of_ours(name, standing.get(fold, []))
        if spelling is None:
            continue
        if complete and fold not in desired:
            remove.append(spelling)
        else:
            kept.append(spelling)
    return Merge(tuple(add.values()), tuple(remove), (*kept, *add.values()), tuple(stays_away.values()))


def _by_fold(names: Iterable[str]) -> dict[str, str]:
    """The first name of each spelling, in their order; what is only spaces is none."""
    found: dict[str, str] = {}
    for name in names:
        if fold := folded(name):
            found.setdefault(fold, name)
    return found


def _spelling_of_ours(name: str, spellings: list[str]) -> str | None:
    """Which of the tags that differ only in spelling is ours; None where that cannot be known."""
    if len(spellings) == 1:
        return spellings[0]  # a target may have its own: Liferay before 7.4 writes all in small letters
    return name if name in spellings else None

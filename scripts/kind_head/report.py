"""How good the head is, as a table: photographs and the rest told apart, kinds, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kind_head.generate import GROUPS
from kind_head.regression import Floats

_GROUPS = ("text", "graphic")
_DOCUMENTS = ("document", "receipt", "form")


@dataclass(frozen=True, slots=True)
class Judged:
    """Probabilities `[N, classes]` of some pictures, and what they are."""

    name: str
    probabilities: Floats
    classes: npt.NDArray[np.int64]
    names: list[str]


def table(judged: Sequence[Judged], classes: Sequence[str], *, wrong: bool = False) -> str:
    """The figures of each set, and of each kind in it."""
    return "\n".join(line for one in judged for line in _lines(one, classes, wrong=wrong))


def _lines(one: Judged, classes: Sequence[str], *, wrong: bool) -> list[str]:
    first = one.probabilities.argmax(axis=1)
    best = one.probabilities[:, 1:].argmax(axis=1) + 1
    other = 1 - one.probabilities[:, 0]
    group = np.array([-1, *(_GROUPS.index(GROUPS[name]) for name in classes[1:])])
    pictures, photographs = one.classes > 0, one.classes == 0
    lines = [f"{one.name}: {len(first)} pictures"]
    if photographs.any():
        named = np.array(one.names)[photographs]
        for what in ("", "written", "grey"):
            some = other[photographs][[f"-{what}" in name if what else True for name in named]]
            alarms = ", ".join(f"{(some >= least).sum()} at {least}" for least in (0.3, 0.5, 0.7))
            lines += [
                f"  photographs {what or 'of all sorts'}, {len(some)}, taken for something else: {alarms}"
            ] * bool(len(some))
    if pictures.any():
        lines.append(f"  {'kind':12}{'number':>7}{'other≥.3':>9}{'≥.5':>7}{'≥.7':>7}{'exact':>7}{'group':>7}")
        for number in [0, *np.unique(one.classes[pictures])]:
            some = pictures if number == 0 else one.classes == number
            cells = [(other[some] >= least).mean() for least in (0.3, 0.5, 0.7)]
            cells += [(best[some] == one.classes[some]).mean(), (group[best[some]] == group[one.classes[some]]).mean()]
            label = "all" if number == 0 else classes[number]
            lines.append(f"  {label:12}{some.sum():7}{cells[0]:9.1%}{''.join(f'{cell:7.1%}' for cell in cells[1:])}")
    if pictures.any():
        documents = np.isin(classes, _DOCUMENTS)
        lines += [_tags(one, group, documents, least) for least in (0.5, 0.6, 0.7)]
    if wrong:
        lines += [
            f"    {name}: {classes[found]} {one.probabilities[row, found]:.2f}, is {classes[one.classes[row]]}"
            for row, (name, found) in enumerate(zip(one.names, first, strict=True))
            if found != one.classes[row]
        ]
    return lines


def _tags(one: Judged, group: npt.NDArray[np.int64], documents: npt.NDArray[np.bool_], least: float) -> str:
    """How many have a kind as a tag, how many a receipt or form beside "document", how many a group, and how many of
    these are right. Groups have their kinds' sum, as documents have, first of which is the page.
    """
    pictures = one.classes > 0
    kinds, classes = one.probabilities[pictures].copy(), one.classes[pictures]
    groups = np.stack([kinds[:, group == number].sum(axis=1) for number in range(len(_GROUPS))], axis=1)
    slips = documents.copy()
    slips[page := int(documents.argmax())] = False
    slip_said = kinds[:, slips].max(axis=1) >= least
    slip_right = (np.where(slips, kinds, 0).argmax(axis=1) == classes)[slip_said]
    kinds[:, page] = kinds[:, documents].sum(axis=1)
    kinds[:, 0] = 0
    found = kinds.argmax(axis=1)
    kind_said, group_said = kinds.max(axis=1) >= least, groups.max(axis=1) >= least
    kind_right = ((found == classes) | (found == page) & documents[classes])[kind_said].mean()
    group_right = (groups.argmax(axis=1) == group[classes])[group_said].mean()
    return (
        f"  at {least}: {kind_said.mean():.1%} have a kind ({kind_right:.1%} right), "
        f"{slip_said.sum()} of them as receipt or form ({slip_right.sum()} right), "
        f"{group_said.mean():.1%} a group ({group_right:.1%} right)"
    )

"""How good the head is, as a table: photographs and the rest told apart, kinds, groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kind_head.generate import GROUPS
from kind_head.regression import Floats
from worker.vocabulary import ancestors

_GROUPS = ("text", "graphic")
_THRESHOLD = 0.6


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
        lines += [_tags(one, classes, sure) for sure in (_THRESHOLD, 0.9, 1.1)]
    if wrong:
        lines += [
            f"    {name}: {classes[found]} {one.probabilities[row, found]:.2f}, is {classes[one.classes[row]]}"
            for row, (name, found) in enumerate(zip(one.names, first, strict=True))
            if found != one.classes[row]
        ]
    return lines


def _tags(one: Judged, classes: Sequence[str], sure: float) -> str:
    """What comes out as tags (worker/tagging/merge.py): from _THRESHOLD on, no group beside a kind that is `sure`."""
    lineages = [(f"kind:{name}", *ancestors(f"kind:{name}")) for name in classes[1:]]
    pictures = one.classes > 0
    having, tags, true = 0, 0, 0
    for row, actual in zip(one.probabilities[pictures, 1:], one.classes[pictures] - 1, strict=True):
        confidences: Counter[str] = Counter()
        for lineage, probability in zip(lineages, row, strict=True):
            confidences.update(dict.fromkeys(lineage, float(probability)))
        said = {each for each, confidence in confidences.items() if confidence >= _THRESHOLD}
        above = {group for each in said if confidences[each] >= sure for group in ancestors(each)}
        said -= {group for group in above if not ancestors(group)}
        right = said.intersection(lineages[actual])
        having, tags, true = having + bool(right), tags + len(said), true + len(right)
    number = int(pictures.sum())
    return (
        f"  groups beside kinds below {sure}: {having / number:.1%} have a true tag, {true / tags:.1%} of tags are true, "
        f"{tags / number:.2f} a picture"
    )

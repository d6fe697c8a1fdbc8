"""Generates the pictures of every kind: `python -m kind_head.generate FOLDER` writes some to be looked at."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kind_head import charts, documents, graphics, maps, screens, slips
from kind_head.draft import TEST_FONTS, TRAINING_FONTS, Draft, Template
from kind_head.render import Renderer, renderer
from kind_head.spoil import spoilt

PHOTOGRAPH = "photograph"
KINDS = ("document", "receipt", "form", "screenshot", "chart", "diagram", "map", "logo", "drawing")
"""The classes, in the order of the model's outputs after `photograph`."""

GROUPS = {kind: "text" if kind in KINDS[:4] else "graphic" for kind in KINDS}

_TRAINING: dict[str, tuple[Template, ...]] = {
    "document": documents.TRAINING,
    "receipt": slips.RECEIPTS_TRAINING,
    "form": slips.FORMS_TRAINING,
    "screenshot": screens.TRAINING,
    "chart": charts.TRAINING,
    "diagram": graphics.DIAGRAMS_TRAINING,
    "map": maps.TRAINING,
    "logo": graphics.LOGOS_TRAINING,
    "drawing": graphics.DRAWINGS_TRAINING,
}
_TEST: dict[str, tuple[Template, ...]] = {
    "document": documents.TEST,
    "receipt": slips.RECEIPTS_TEST,
    "form": slips.FORMS_TEST,
    "screenshot": screens.TEST,
    "chart": charts.TEST,
    "diagram": graphics.DIAGRAMS_TEST,
    "map": maps.TEST,
    "logo": graphics.LOGOS_TEST,
    "drawing": graphics.DRAWINGS_TEST,
}


@dataclass(frozen=True, slots=True)
class Example:
    """A picture's file and what it is; `name` says which template and number made it."""

    kind: str
    name: str
    data: bytes


def generated(kind: str, count: int, seed: str, render: Renderer, *, test: bool = False) -> Iterator[Example]:
    """Pictures of a kind; the same arguments give the same ones, with the same Chromium and fonts."""
    templates = (_TEST if test else _TRAINING)[kind]
    fonts = TEST_FONTS if test else TRAINING_FONTS
    for number in range(count):
        draft = Draft(f"{seed} {kind} {number}", fonts)
        if kind == "chart" and number % 3 == 2:
            name = draft.one(charts.PLOTS_TEST if test else charts.PLOTS_TRAINING)
            picture = charts.plotted(draft, name)
        else:
            template = templates[number % len(templates)]
            name = template.__name__.strip("_")
            picture = render(template(draft))
        yield Example(kind, f"{kind}-{name}-{number}", spoilt(picture, kind, draft.random))


def main() -> None:
    """Write some training and half as many test pictures of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=12, help="training pictures of a kind")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with renderer() as render:
        for kind in KINDS:
            for name, count, test in (("training", given.each, False), ("test", given.each // 2, True)):
                for example in generated(kind, count, "shown", render, test=test):
                    suffix = "png" if example.data.startswith(b"\x89PNG") else "jpg"
                    (given.folder / f"{name}-{example.name}.{suffix}").write_bytes(example.data)


if __name__ == "__main__":
    main()

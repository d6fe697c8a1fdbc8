"""Generates the pictures of every kind: `python -m kind_head.generate FOLDER` writes some to be looked at."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kind_head import charts, documents, graphics, maps, screens, slips
from kind_head.draft import Draft, Template
from kind_head.render import Renderer, renderer
from kind_head.spoil import spoilt

PHOTOGRAPH = "photograph"
KINDS = ("document", "receipt", "form", "screenshot", "chart", "diagram", "map", "logo", "drawing")
"""The classes, in the order of the model's outputs after `photograph`."""

GROUPS = {kind: "text" if kind in KINDS[:4] else "graphic" for kind in KINDS}

_TEMPLATES: dict[str, tuple[Template, ...]] = {
    "document": documents.TEMPLATES,
    "receipt": slips.RECEIPTS,
    "form": slips.FORMS,
    "screenshot": screens.TEMPLATES,
    "chart": charts.TEMPLATES,
    "diagram": graphics.DIAGRAMS,
    "map": maps.TEMPLATES,
    "logo": graphics.LOGOS,
    "drawing": graphics.DRAWINGS,
}


@dataclass(frozen=True, slots=True)
class Example:
    """A picture's file and what it is; `name` says which template and number made it."""

    kind: str
    name: str
    data: bytes


def generated(kind: str, count: int, seed: str, render: Renderer) -> Iterator[Example]:
    """Pictures of a kind; the same arguments give the same ones, with the same Chromium and fonts."""
    templates = _TEMPLATES[kind]
    for number in range(count):
        draft = Draft(f"{seed} {kind} {number}")
        if kind == "chart" and number % 3 == 2:
            name = draft.one(charts.PLOTS)
            picture = charts.plotted(draft, name)
        else:
            template = templates[number % len(templates)]
            name = template.__name__.strip("_")
            picture = render(template(draft))
        yield Example(kind, f"{kind}-{name}-{number}", spoilt(picture, kind, draft.random))


def template_of(name: str) -> str:
    """Which template made a generated picture of this name."""
    return name.split("-", 1)[1].rpartition("-")[0]


def main() -> None:
    """Write some pictures of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=12, help="pictures of a kind")
    parser.add_argument("--seed", default="shown")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with renderer() as render:
        for kind in KINDS:
            for example in generated(kind, given.each, given.seed, render):
                suffix = "png" if example.data.startswith(b"\x89PNG") else "jpg"
                (given.folder / f"{example.name}.{suffix}").write_bytes(example.data)


if __name__ == "__main__":
    main()

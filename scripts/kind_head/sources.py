"""Which files of Debian's packages are photographs, objects, clip art, and pictures for the test.

The folder is what `fetch_pictures.sh` makes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

from PIL import Image

from kind_head import resources
from kind_head.draft import Draft, page
from kind_head.generate import Example
from kind_head.photographs import pictures_below
from kind_head.render import Renderer
from kind_head.spoil import spoilt

_ACTIVITIES = (
    "categorization", "clickgame", "erase", "explore_farm_animals", "explore_monuments", "explore_world_animals",
    "leftright",
)  # fmt: skip
"""Of GCompris: those with photographs and hardly anything else."""

_SCENES = (
    "mate-backgrounds/usr/share/backgrounds/mate/nature",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04/usr/share/backgrounds",
    "palapeli-data/usr/share/palapeli/collection",
    *(
        f"plasma-workspace-wallpapers/usr/share/wallpapers/{name}"
        for name in ("BytheWater", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "OneStandsOut")
    ),
)
_STAMPS = ("animals", "food", "household", "hobbies", "plants", "sports", "vehicles", "space", "symbols/money")
_MARKS = ("computer/icons", "signs_and_symbols", "shapes", "transportation/aiga-symbols", "animals", "food", "logos")
_CLIP_ART = (
    "animals",
    "people",
    "plants",
    "food",
    "recreation",
    "buildings",
    "tools",
    "transportation/vehicles",
    "office",
)


def scenes(folder: Path) -> list[Path]:
    """Whole photographs, some hundreds."""
    training = folder / "training"
    unpacked = training / "gcompris"
    if not unpacked.exists():
        resources.unpack(training / "gcompris-qt-data/usr/share/gcompris-qt/rcc", unpacked, _ACTIVITIES)
    return [path for name in (*_SCENES, "gcompris") for path in pictures_below(training / name)]


def objects(folder: Path) -> list[Path]:
    """Photographs of things that are cut out."""
    stamps = folder / "training/tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    return [path for name in _STAMPS for path in pictures_below(stamps / name) if "cartoon" not in str(path)]


def clip_art(folder: Path, count: int, render: Renderer) -> Iterator[Example]:
    """Drawings by people, on white or a colour, spoilt as all others are."""
    for number, path in enumerate(_art(folder, _CLIP_ART)[:count]):
        draft = Draft(f"clip {number}")
        ground = draft.one(("#fff", "#fff", "#fff", draft.colour((10, 60), (85, 97)), "#eee"))
        width, height = draft.one(((600, 600), (800, 600), (600, 800)))
        style = f"body{{background:{ground}}}img{{display:block;width:90%;height:90%;margin:5%;object-fit:contain}}"
        picture = render(page(style, _image(path), width, height))
        yield Example("drawing", f"drawing-{path.stem}", spoilt(picture, "drawing", draft.random))


def marks(folder: Path, count: int, render: Renderer) -> Iterator[Example]:
    """Logos of a symbol, in its own colours or in one, and a name above, below or beside it, or none."""
    for number, path in enumerate(_art(folder, _MARKS)[-count:]):
        draft = Draft(f"mark {number}")
        ground, ink = draft.one(
            (
                ("#fff", "#222"),
                ("#fff", draft.colour()),
                ("#f4f4f4", "#111"),
                (draft.colour((40, 90), (15, 40)), "#fff"),
            )
        )
        shade = (
            draft.one(("none", "none", "brightness(0)", "grayscale(1)")) if ink != "#fff" else "brightness(0) invert(1)"
        )
        name = draft.brand().upper() if draft.chance(0.4) else draft.brand()
        words = f'<b style="font:{draft.one((400, 700, 900))} {draft.between(50, 90)}px {draft.font("sans", "serif", "script")};color:{ink}">{name}</b>'
        body = f"{_image(path)}{words if draft.chance(0.75) else ''}"
        width, height = draft.one(((600, 600), (800, 500), (900, 400)))
        style = (
            f"body{{background:{ground};display:flex;flex-direction:{draft.one(('row', 'column', 'column-reverse'))};align-items:center;"
            f"justify-content:center;gap:24px}}img{{height:{draft.between(30, 60)}%;max-width:60%;filter:{shade}}}"
        )
        yield Example(
            "logo", f"logo-{path.stem}", spoilt(render(page(style, body, width, height)), "logo", draft.random)
        )


def _art(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Clip art of some subjects, in an order that has nothing to do with the names."""
    art = folder / "training/openclipart-svg/usr/share/openclipart/svg"
    paths = {path for name in names for path in (art / name).rglob("*.svg") if path.stat().st_size < 300_000}
    return sorted(paths, key=lambda path: (hashlib.sha256(path.name.encode()).digest(), path))


def _image(path: Path) -> str:
    return f"<img src='data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}'>"


def real(folder: Path) -> Iterator[Example]:
    """Pictures for the test that nobody of this project has made: kind, name, bytes."""
    test = folder / "test"
    help_images = test / "gimp-help-en/usr/share/gimp/2.0/help/en/images"
    shown = [
        path for path in pictures_below(help_images) if re.search("dialog|options|prefs|menu|^filters-", path.stem)
    ]
    yield from _large("screenshot", shown, 80, 150)
    yield from _large("screenshot", sorted((test / "gnome-user-docs/usr/share/help/C").rglob("shell-*.png")), 30, 200)
    yield from _large("map", sorted((test / "kgeography-data/usr/share/kgeography").glob("*.png")), 80, 200)
    yield from _large("diagram", pictures_below(test / "graphviz-doc"), 60, 150)
    yield from _large("chart", pictures_below(test / "gnuplot-plots"), 80, 150)
    yield from _large("drawing", pictures_below(test / "gcompris-cartoons"), 80, 100)
    yield from _large("logo", pictures_below(test / "logos"), 80, 60)
    yield from _pdf_pages(test / "texlive-latex-recommended-doc", test / "pages", 80)


def _large(kind: str, paths: list[Path], count: int, least: int) -> Iterator[Example]:
    """Some of the pictures: those without a very short side, in an order that has nothing to do with their names."""
    chosen = []
    for path in sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest()):
        with Image.open(path) as opened:
            if min(opened.size) >= least:
                chosen.append(path)
    for path in chosen[:count]:
        data = path.read_bytes()
        if path.suffix == ".svgz":
            continue
        yield Example(kind, f"real-{kind}-{path.stem}", data)


def _pdf_pages(documents: Path, folder: Path, count: int) -> Iterator[Example]:
    """A page of each of some manuals, by poppler."""
    if not folder.exists():
        folder.mkdir()
        for number, path in enumerate(sorted(documents.rglob("*.pdf"))[:count]):
            wanted = str(1 + number % 4)
            run(
                ["pdftoppm", "-png", "-r", "80", "-q", "-f", wanted, "-l", wanted, str(path), str(folder / path.stem)],  # noqa: S607
                check=False,
            )
    yield from _large("document", pictures_below(folder), count, 200)

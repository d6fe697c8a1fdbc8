"""Trains the kind head and writes its package: `python -m kind_head.train PICTURES`; see README.md."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kind_head import photographs, sources
from kind_head.features import MODEL, Extract, Features, extractor, of_files
from kind_head.generate import KINDS, PHOTOGRAPH, Example, generated, template_of
from kind_head.package import write
from kind_head.regression import Floats, Linear, fitted, softmax, temperature
from kind_head.render import Renderer, renderer
from kind_head.report import Judged, table
from worker.models.build import ensure_model

CLASSES = (PHOTOGRAPH, *KINDS)
SHARE = np.array([0.55, *[0.45 / len(KINDS)] * len(KINDS)])
"""What each class counts for: a document that is taken for a photograph is a lesser evil than the reverse."""

PENALTY = 1e-2
"""Of 0.0005, 0.002, 0.006, 0.01 and 0.02: with less, photographs far from those of the training are taken for something
else; with more, fewer kinds are sure enough to be a tag."""

EACH = 400
FOLDS = 5
CLIP_ART, MARKS = 320, 240
NEGATIVES, NEGATIVES_FOR_TEST = 4000, 600


@dataclass(frozen=True, slots=True)
class Collected:
    """Features `[N, 1280]`, what each is, and the pictures' names."""

    features: Features
    classes: npt.NDArray[np.int64]
    names: list[str]


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits `[N, classes]` of some pictures, what each is, and their names."""

    logits: Floats
    classes: npt.NDArray[np.int64]
    names: list[str]


def collected(name: str, examples: Iterable[Example], extract: Extract, cache: Path) -> Collected:
    """The features of examples; kept in a file, because it is the work of minutes."""
    path = cache / f"{name}.npz"
    if not path.exists():
        rows, classes, names = [], [], []
        for example in examples:
            rows.append(extract(example.data))
            classes.append(CLASSES.index(example.kind))
            names.append(example.name)
        np.savez(path, features=np.stack(rows), classes=np.array(classes), names=np.array(names))
        print(f"{name}: {len(rows)} pictures", flush=True)
    with np.load(path) as kept:
        return Collected(kept["features"], kept["classes"].astype(np.int64), [str(one) for one in kept["names"]])


def _photographs(folder: Path, count: int, *, test: bool) -> Iterable[Example]:
    whole = photographs.of_test(sources.scenes(folder), test=test)
    objects = photographs.of_test(sources.objects(folder), test=test)
    found = photographs.negatives(whole, objects, count, f"{'test' if test else 'training'} 1")
    for number, (done, data) in enumerate(found):
        yield Example(PHOTOGRAPH, f"photograph-{done}-{number}", data)


def gathered(folder: Path, extract: Extract, render: Renderer) -> dict[str, Collected]:
    """What is trained with: `generated` pictures, and `found` ones; and what is not: `photographs`, and `real` pictures."""
    cache = folder / "features"
    cache.mkdir(exist_ok=True)
    made = [collected(kind, generated(kind, EACH, "training 2", render), extract, cache) for kind in KINDS]
    found = [
        collected("clip-art", sources.clip_art(folder, CLIP_ART, render), extract, cache),
        collected("marks", sources.marks(folder, MARKS, render), extract, cache),
        collected("photographs", _photographs(folder, NEGATIVES, test=False), extract, cache),
    ]
    others = _photographs(folder, NEGATIVES_FOR_TEST, test=True)
    return {
        "generated": _joined(made),
        "found": _joined(found),
        "photographs": collected("other-photographs", others, extract, cache),
        "real": collected("real", sources.real(folder), extract, cache),
    }


def _joined(parts: list[Collected]) -> Collected:
    return Collected(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.classes for part in parts]),
        [name for part in parts for name in part.names],
    )


def _trained(parts: list[Collected]) -> Linear:
    whole = _joined(parts)
    return fitted(whole.features, whole.classes, SHARE, PENALTY)


def _some(part: Collected, which: npt.NDArray[np.bool_]) -> Collected:
    names = [name for name, is_one in zip(part.names, which, strict=True) if is_one]
    return Collected(part.features[which], part.classes[which], names)


def _rounds(made: Collected) -> npt.NDArray[np.int64]:
    """In which of the FOLDS rounds each picture is left out; all of one template are in the same."""
    templates = [(kind, template_of(name)) for kind, name in zip(made.classes.tolist(), made.names, strict=True)]
    rounds: dict[tuple[int, str], int] = {}
    for kind in range(len(CLASSES)):
        own = sorted({each for each in templates if each[0] == kind})
        rounds |= {each: number % FOLDS for number, each in enumerate(own)}
    return np.array([rounds[each] for each in templates])


def with_templates_left_out(made: Collected, found: Collected) -> list[Scored]:
    """The generated pictures, each scored by a head that has seen none of the same template."""
    rounds = _rounds(made)
    scored = []
    for number in range(FOLDS):
        linear = _trained([_some(made, rounds != number), found])
        scored.append(_scored(linear, _some(made, rounds == number)))
    return scored


def _scored(linear: Linear, part: Collected) -> Scored:
    return Scored(linear.logits(part.features), part.classes, part.names)


def _together(parts: list[Scored]) -> Scored:
    names = [name for part in parts for name in part.names]
    return Scored(
        np.concatenate([part.logits for part in parts]), np.concatenate([part.classes for part in parts]), names
    )


def _heat(photographs: Scored, pictures: list[Scored]) -> float:
    """The temperature; photographs count for half, and each part of the others for as much as another."""
    each = [np.full(len(photographs.classes), 0.5 / len(photographs.classes))]
    each += [np.full(len(part.classes), 0.5 / len(pictures) / len(part.classes)) for part in pictures]
    whole = _together([photographs, *pictures])
    return temperature(whole.logits, whole.classes, np.concatenate(each))


def main() -> None:
    """Gather, fit, print how good it is, write the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, help="the folder that fetch_pictures.sh made")
    parser.add_argument(
        "--photographs", type=Path, action="append", default=[], help="a folder to count false alarms in"
    )
    parser.add_argument("--write", type=Path, help="the package's folder")
    parser.add_argument("--wrong", action="store_true", help="list the pictures that are taken for something else")
    given = parser.parse_args()
    package = ensure_model(MODEL, given.pictures / "cache")
    extract = extractor(package)
    with renderer() as render:
        parts = gathered(given.pictures, extract, render)
    made, found = parts["generated"], parts["found"]
    linear = _trained([made, found])
    unseen = _together(with_templates_left_out(made, found))
    others, real = _scored(linear, parts["photographs"]), _scored(linear, parts["real"])
    heat = _heat(others, [unseen, real])
    named = {"generated, template left out": unseen, "photographs": others, "made by others": real}
    judged = [Judged(name, softmax(one.logits / heat), one.classes, one.names) for name, one in named.items()]
    for folder in given.photographs:
        shown, names = of_files(photographs.pictures_below(folder), extract)
        seen = linear.logits(shown) / heat
        judged.append(Judged(folder.name, softmax(seen), np.zeros(len(shown), np.int64), names))
    print(f"temperature {heat}")
    print(table(judged, CLASSES, wrong=given.wrong))
    if given.write:
        trained_on = np.concatenate([made.classes, found.classes])
        counts = {name: int((trained_on == number).sum()) for number, name in enumerate(CLASSES)}
        write(given.write, linear, heat, package, counts)


if __name__ == "__main__":
    main()

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
from kind_head.generate import KINDS, PHOTOGRAPH, Example, generated
from kind_head.package import write
from kind_head.regression import Linear, fitted, softmax, temperature
from kind_head.render import Renderer, renderer
from kind_head.report import Judged, table
from worker.models.build import ensure_model

CLASSES = (PHOTOGRAPH, *KINDS)
SHARE = np.array([0.55, *[0.45 / len(KINDS)] * len(KINDS)])
"""What each class counts for: a document that is taken for a photograph is a lesser evil than the reverse."""

PENALTY = 1e-2
"""Of 0.0005, 0.002, 0.006, 0.01 and 0.02: with less, photographs far from those of the training are taken for something
else; with more, fewer kinds are sure enough to be a tag."""

EACH, EACH_FOR_TEST = 320, 40
CLIP_ART, MARKS = 320, 240
NEGATIVES, NEGATIVES_FOR_TEST = 4000, 600


@dataclass(frozen=True, slots=True)
class Collected:
    """Features `[N, 1280]`, what each is, and the pictures' names."""

    features: Features
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
    """All training pictures as `training`, the generated ones for the test as `held out`, those of others as `real`."""
    cache = folder / "features"
    cache.mkdir(exist_ok=True)
    parts = [
        collected(f"training-{kind}", generated(kind, EACH, "training 1", render), extract, cache) for kind in KINDS
    ]
    parts.append(collected("training-clip-art", sources.clip_art(folder, CLIP_ART, render), extract, cache))
    parts.append(collected("training-marks", sources.marks(folder, MARKS, render), extract, cache))
    parts.append(collected("training-photograph", _photographs(folder, NEGATIVES, test=False), extract, cache))
    held = [
        collected(f"test-{kind}", generated(kind, EACH_FOR_TEST, "test 1", render, test=True), extract, cache)
        for kind in KINDS
    ]
    held.append(collected("test-photograph", _photographs(folder, NEGATIVES_FOR_TEST, test=True), extract, cache))
    real = [collected("real", sources.real(folder), extract, cache)]
    return {name: _joined(some) for name, some in (("training", parts), ("held out", held), ("real", real))}


def _joined(parts: list[Collected]) -> Collected:
    return Collected(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.classes for part in parts]),
        [name for part in parts for name in part.names],
    )


def _heat(linear: Linear, parts: dict[str, Collected]) -> float:
    """The temperature, by the pictures that others have made and by photographs not used in training."""
    held, real = parts["held out"], parts["real"]
    photograph = held.classes == 0
    features = np.concatenate([held.features[photograph], real.features])
    classes = np.concatenate([held.classes[photograph], real.classes])
    each = np.where(classes == 0, 0.5 / photograph.sum(), 0.5 / len(real.classes))
    return temperature(linear.logits(features), classes, each)


def _judged(name: str, linear: Linear, heat: float, part: Collected) -> Judged:
    return Judged(name, softmax(linear.logits(part.features) / heat), part.classes, part.names)


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
    linear = fitted(parts["training"].features, parts["training"].classes, SHARE, PENALTY)
    heat = _heat(linear, parts)
    judged = [_judged(name, linear, heat, part) for name, part in parts.items()]
    for folder in given.photographs:
        rows, names = of_files(photographs.pictures_below(folder), extract)
        judged.append(_judged(folder.name, linear, heat, Collected(rows, np.zeros(len(rows), np.int64), names)))
    print(f"temperature {heat}")
    print(table(judged, CLASSES, wrong=given.wrong))
    if given.write:
        counts = {name: int((parts["training"].classes == n).sum()) for n, name in enumerate(CLASSES)}
        write(given.write, linear, heat, package, counts)


if __name__ == "__main__":
    main()

"""How often NanoDet's int8 package sees what its float graph sees: `python -m … PACKAGE WEIGHTS FOLDER`.

Writes the share of the photographs on which both have the same classes at 0.4, and their number.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.support.models import picture
from worker.models.builder.nanodet import MEAN, SCALE, build_detector, read_graph
from worker.models.manifest import ModelPackage
from worker.models.runtimes import open_runtime

SURE = 0.4


def main() -> None:
    """Compare."""
    package, weights = ModelPackage.load(Path(sys.argv[1])), Path(sys.argv[2])
    size = package.manifest.input.size
    graph = read_graph((weights / "nanodet.json").read_bytes(), (weights / "nanodet.bin").read_bytes())
    run = tf.function(build_detector(graph, size), autograph=False)
    runtime = open_runtime(package, threads=2)
    same = []
    for file in sorted(Path(sys.argv[3]).iterdir()):
        if file.suffix.lower() not in (".jpg", ".jpeg"):
            continue
        pixels = picture(file, package.manifest.recipe())[None]
        logits = run(tf.constant((pixels.astype(np.float32) - MEAN) / SCALE)).numpy()[0]
        reference = 1 / (1 + np.exp(-logits)) >= SURE
        same.append(bool((reference == (runtime.score(pixels)[0] >= SURE)).all()))
    sys.stdout.write(f"{sum(same) / len(same)} {len(same)}\n")


if __name__ == "__main__":
    main()

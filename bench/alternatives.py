"""Other libraries for the two things that cost: JPEG decoders, and runtimes for the quantised model.

The trials run in an environment of their own (`tried/requirements.txt`), on the same photographs as everything else and
in one thread. What follows from them stands in docs/performance.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from environments import BENCH, EnvironmentNotMadeError, python_of
from workloads import Workloads

from worker.models.build import ensure_model
from worker.models.manifest import ModelPackage
from worker.settings import load_settings

MODEL = "efficientnet-lite0"
_SQUARES = 150
_WITHIN_S = 900.0


def measure(out: Path, pictures: Workloads, seconds: float) -> list[dict[str, Any]]:
    """A row for each candidate on each kind of input; empty where the environment cannot be made."""
    try:
        python = python_of("alternatives", [BENCH / "tried" / "requirements.txt"], out)
    except EnvironmentNotMadeError as error:
        print(f"bench: no other decoders and runtimes: {error}", file=sys.stderr)
        return []
    cache_dir = load_settings().settings.cache_dir
    package, floating = ensure_model(MODEL, cache_dir), ensure_model(f"{MODEL}-float", cache_dir)
    size, run_s = str(package.manifest.input.size), str(max(0.2, seconds / 5))
    squares = _write_squares(out / "squares.rgb", pictures, package)
    files = [str(package.model_path), str(floating.model_path), str(squares)]
    return [
        *_lines(python, "decoders.py", [str(pictures.folder), size, run_s]),
        *_lines(python, "runtimes.py", [*files, size, run_s]),
    ]


def _write_squares(file: Path, pictures: Workloads, package: ModelPackage) -> Path:
    """The model's input for some photographs, one after another."""
    from PIL import Image

    from worker.children import rendering
    from worker.children.picture import of_pillow

    with file.open("wb") as written:
        for picture in pictures.files("web")[:_SQUARES]:
            with Image.open(picture) as image:
                written.write(rendering.pixels(of_pillow(image), [package.manifest.recipe()]))
    return file


def _lines(python: Path, script: str, arguments: list[str]) -> Iterator[dict[str, Any]]:
    """What a trial prints, as rows of the table."""
    environment = os.environ | {"PYTHONPATH": str(BENCH.parent), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [str(python), str(BENCH / "tried" / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
    if done.returncode:
        print(f"bench: {script} ended with {done.returncode}: {done.stderr[-2000:]}", file=sys.stderr)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            yield {"wall_ms": None, "cpu_ms": None, "note": _note(found), **found}


def _note(found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"not to be had here: {found['failed']}"
    if "same" in found:
        return f"first label as LiteRT's: {found['same']:.0%}"
    return f"pixels off by {found['off']:.2f} of 255 on average"

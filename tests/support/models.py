"""Real and small model packages for tests; TensorFlow runs in separate processes."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from platformdirs import user_cache_path

from worker.children.picture import of_pillow
from worker.children.rendering import pixels
from worker.images.requests import PixelRecipe
from worker.models.build import ensure_model
from worker.models.manifest import ModelPackage, file_sha256, tree_sha256

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def built(name: str) -> ModelPackage:
    """A built-in model from the developer's own cache; verified, and built if it is not there."""
    return ensure_model(name, Path(os.environ.get("AUTOTAG_CACHE_DIR") or user_cache_path("autotag")))


def picture(path: Path, recipe: PixelRecipe) -> npt.NDArray[np.uint8]:
    """The pixels that a decoder child renders from a file."""
    with Image.open(path) as image:
        return np.frombuffer(pixels(of_pillow(image), [recipe]), np.uint8).reshape(recipe.size, recipe.size, 3)


def score_elsewhere(package: ModelPackage, pictures: npt.NDArray[np.uint8], scratch: Path) -> dict[str, Any]:
    """Score in another process: `scores`, `best` (the first label of each) and the `modules` that were imported."""
    np.save(scratch / "pictures.npy", pictures)
    output = run_python("tests.support.scoring", package.directory, scratch / "pictures.npy", scratch / "scores.npy")
    scores = np.load(scratch / "scores.npy")
    best = [package.labels[index] for index in scores.argmax(axis=1)]
    return {"scores": scores, "best": best, "modules": set(json.loads(output.splitlines()[-1]))}


def run_python(module: str, *arguments: object) -> str:
    """Run a module of the project and return its standard output. If it fails, so does the test, with its stderr."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_package(directory: Path, model: str, labels: list[str], **changes: Any) -> ModelPackage:
    """Write labels and a manifest beside an existing model file, and load the package."""
    (directory / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    path = directory / model
    manifest = {
        "name": "small",
        "runtime": "litert",
        "model": {"file": model, "sha256": tree_sha256(path) if path.is_dir() else file_sha256(path)},
        "labels": {"file": "labels.txt", "sha256": file_sha256(directory / "labels.txt")},
        "input": {"size": 8},
        "output": {"activation": "logits"},
        "licence": "none",
        "source": "a test",
    } | changes
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return ModelPackage.load(directory)


def with_other_labels(package: ModelPackage, folder: Path, **changes: object) -> Path:
    """The package with its labels in the opposite order, as if it had been put together wrongly."""
    shutil.copytree(package.directory, folder)
    labels = folder / package.manifest.labels.file
    labels.write_text("\n".join(reversed(labels.read_text().splitlines())) + "\n")
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    manifest["labels"]["sha256"] = file_sha256(labels)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder

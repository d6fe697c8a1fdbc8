"""Data wheels: Python packages that hold a built model, so that it need not be built where it is installed.

`autotag-model-NAME` installs a package's files (`manifest.json` and what it names) into a directory of site-packages,
where they are used as they are. Nothing of it is imported. `scripts/make_model_wheels.py` makes them.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from worker.errors import Misconfigured
from worker.models.manifest import ModelPackage


@dataclass(frozen=True, slots=True)
class DataWheel:
    """An installed data wheel: `package` is its model, or None, and `problem` then says why it cannot be used."""

    distribution: str
    directory: Path
    package: ModelPackage | None
    problem: str


def distribution_of(name: str) -> str:
    """What the data wheel of a model is called in a package index."""
    return f"autotag-model-{name}"


def find_data_wheel(distribution: str, name: str, build_key: str) -> DataWheel | None:
    """The installed wheel, or None if there is none. Usable is one of the same model from the same build."""
    spec = importlib.util.find_spec(distribution.replace("-", "_"))  # locates it without running its code
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent
    try:
        package = ModelPackage.load(directory)
    except Misconfigured as error:
        return DataWheel(distribution, directory, None, f"{distribution} cannot be used: {error}")
    manifest = package.manifest
    if (manifest.name, manifest.build) != (name, build_key):
        problem = (
            f"the installed {distribution} is of another version than this Autotag: it holds {manifest.name} of the "
            f"build {manifest.build}, wanted is {name} of the build {build_key}"
        )
        return DataWheel(distribution, directory, None, problem)
    return DataWheel(distribution, directory, package, "")

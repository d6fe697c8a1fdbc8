"""Makes data wheels of built models: `autotag-model-NAME`, which Autotag finds where they are installed.

    make_model_wheels.py OUT DIRECTORY...

OUT gets a wheel of each model package DIRECTORY, of Autotag's own version. What it holds and how is fixed, as is the
date of its files (SOURCE_DATE_EPOCH): the same package gives the same bytes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import worker
from worker.models.catalogue import data_wheel_name
from worker.models.manifest import MANIFEST_FILE, ModelPackage, RuntimeName

ROOT = Path(__file__).resolve().parent.parent
NOTICES = {"efficientnet-lite": "Apache-2.0", "nanodet": "Apache-2.0 AND MIT"}
"""How names of models begin, with the licences of those; the notice of each is in `model_notices/`."""

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "{version}"
description = "The model {name} for Autotag (autotag-worker), as it is built: no code, and nothing to build."
readme = "README.md"
license = "{licence}"
license-files = ["LICENSE", "NOTICE", "WordNet-3.0.txt"]
requires-python = ">=3.11"

[tool.hatch.build]
ignore-vcs = true

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""
README = """\
# {distribution}

The model `{identity}` for Autotag (`autotag-worker`), as it is built from its weights.
Autotag of the same version finds and verifies it by itself:

    pip install autotag-worker {distribution}
    autotag tag photo.jpg

Licences: {licence}; NOTICE says whose work it is and what was changed.
"""


def make_wheel(package: ModelPackage, out: Path) -> Path:
    """The wheel of a package, in `out`. Raises `Misconfigured` if it is damaged, ValueError if none can be made."""
    package.verify()
    with tempfile.TemporaryDirectory(prefix="autotag-data-wheel-") as folder:
        project = Path(folder)
        _write_project(project, package)
        # hatchling by itself, without `build`: it is installed here, of the version that makes Autotag's own wheel.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "hatchling", "build", "--target", "wheel"],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ValueError(f"hatchling cannot build {package.identity}: {done.stdout}{done.stderr}")
        (wheel,) = (project / "dist").glob("*.whl")
        return Path(shutil.move(wheel, out / wheel.name))


def _write_project(project: Path, package: ModelPackage) -> None:
    name, distribution = package.manifest.name, data_wheel_name(package.manifest.name)
    family = next((each for each in NOTICES if name.startswith(each)), None)
    if package.manifest.runtime is not RuntimeName.LITERT:
        raise ValueError(f"{name} is a {package.manifest.runtime}: only LiteRT models run without TensorFlow")
    if family is None:
        raise ValueError(f"{name}: there is no notice in scripts/model_notices/ that says whose work it is")
    module = project / distribution.replace("-", "_")
    words = {
        "distribution": distribution,
        "identity": package.identity,
        "licence": NOTICES[family],
        "module": module.name,
        "name": name,
        "version": worker.__version__,
    }
    module.mkdir()
    (module / "__init__.py").write_text(f'"""The files of the model {package.identity} for Autotag; no code."""\n')
    for file in (MANIFEST_FILE, package.manifest.model.file, package.manifest.labels.file):
        shutil.copyfile(package.directory / file, module / file)
    shutil.copyfile(ROOT / "LICENSE", project / "LICENSE")
    shutil.copyfile(ROOT / "LICENSES/WordNet-3.0.txt", project / "WordNet-3.0.txt")
    shutil.copyfile(ROOT / f"scripts/model_notices/{family}.txt", project / "NOTICE")
    (project / "README.md").write_text(README.format(**words))
    (project / "pyproject.toml").write_text(PROJECT.format(**words))


def main() -> int:
    """Make the wheels that the command line asks for, and print their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("packages", nargs="+", type=Path, metavar="DIRECTORY")
    arguments = parser.parse_args()
    for directory in arguments.packages:
        print(make_wheel(ModelPackage.load(directory), arguments.out).name)
    return 0


if __name__ == "__main__":
    sys.exit(main())

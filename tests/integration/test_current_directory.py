"""Nothing that merely lies in the directory in which a command is started is run as code, or obeyed as a setting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import built

MODULES = (
    *("worker/__init__.py", "worker/children/__init__.py", "worker/children/decoder.py", "worker/children/model.py"),
    *("random.py", "types.py", "json.py", "struct.py", "msgpack.py", "PIL.py", "PIL/__init__.py", "numpy.py"),
    *("ai_edge_litert.py", "tensorflow.py", "structlog.py", "sitecustomize.py", "usercustomize.py", "planted.py"),
)
"""What an import in the parent, a decoder, the model child or the builder would find first."""

ENTRY_POINT = "[autotag.providers]\nplanted = planted:Provider\n"


@pytest.fixture
def trap(tmp_path: Path, photographs: dict[str, Path]) -> Path:
    """A directory with a photograph, and with modules that leave a file `RAN` behind when they are run."""
    directory = tmp_path / "trap"
    code = f"open({str(directory / 'RAN')!r}, 'a').write(__file__ + chr(10))\nraise SystemExit('the planted module')\n"
    for module in MODULES:
        (directory / module).parent.mkdir(parents=True, exist_ok=True)
        (directory / module).write_text(code)
    package = directory / "planted-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRY_POINT)
    shutil.copy(photographs["chelsea"], directory / "a.jpg")
    return directory


def run(directory: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The installed command, started in `directory`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    environment |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
    command = [str(Path(sys.executable).with_name("autotag")), *words]
    return subprocess.run(
        command, cwd=directory, env=environment | variables, capture_output=True, text=True, timeout=120, check=False
    )


def ran(directory: Path) -> list[str]:
    trace = directory / "RAN"
    return trace.read_text().splitlines() if trace.exists() else []


TAG = ("tag", "--json", "--model", "efficientnet-lite0", "a.jpg")


def test_the_trap_springs(trap: Path) -> None:
    """The check can fail: an interpreter that is started as usual runs the planted modules."""
    subprocess.run([sys.executable, "-m", "random"], cwd=trap, capture_output=True, timeout=60, check=False)
    assert ran(trap)


def test_tagging_runs_no_code_of_the_directory(trap: Path) -> None:
    built("efficientnet-lite0")
    done = run(trap, *TAG)
    assert ran(trap) == []
    assert done.returncode == 0, done.stderr
    assert "cat" in {tag["name"] for tag in json.loads(done.stdout)["tags"]}


@pytest.mark.parametrize("path", ["relative", "elsewhere:"])
def test_the_children_run_none_either_where_the_import_path_names_the_directory(trap: Path, path: str) -> None:
    """An empty or relative entry of PYTHONPATH is the parent's own affair; the children are not led astray by it."""
    from worker.supervision.interpreter import safe_import_path

    found = safe_import_path({"PYTHONPATH": path, "HOME": "/"})
    assert found["HOME"] == "/"
    assert all(os.path.isabs(entry) for entry in found["PYTHONPATH"].split(os.pathsep))
    assert safe_import_path({"PYTHONPATH": ""}) == {}
    assert safe_import_path({"PYTHONPATH": os.pathsep}) == {}


def test_building_a_model_runs_no_code_of_the_directory(trap: Path, tmp_path: Path) -> None:
    # A model that is already built is not built again, so the build is asked for in a cache of its own; it is ended
    # as soon as its first step is reported, for which the builder has imported all that it needs at first.
    from worker.models.build import ensure_model
    from worker.models.staging import ModelProgress

    class Enough(Exception):
        pass

    def first_step(progress: ModelProgress) -> None:
        raise Enough

    before = Path.cwd()
    os.chdir(trap)
    try:
        with pytest.raises(Enough):
            ensure_model("efficientnet-lite0", tmp_path / "cache", first_step)
    finally:
        os.chdir(before)
    assert ran(trap) == []


def test_a_relative_model_directory_is_found_by_the_child(trap: Path) -> None:
    package = built("efficientnet-lite0")
    shutil.copytree(package.directory, trap / "my-model")
    done = run(trap, "tag", "--json", "--model", "my-model", "a.jpg")
    assert ran(trap) == []
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tags"]


@pytest.mark.parametrize("name", ["autotag.toml", ".env"])
def test_settings_of_a_stranger_are_not_obeyed_and_ones_own_are_reported(trap: Path, name: str) -> None:
    file = trap / name
    file.write_text(
        "maximum_number_of_tags_per_asset = 7\n"
        if name == "autotag.toml"
        else "AUTOTAG_MAXIMUM_NUMBER_OF_TAGS_PER_ASSET=7\n"
    )
    file.chmod(0o666)
    stranger = run(trap, "config", "show", "--json")
    assert json.loads(stranger.stdout)["settings"]["maximum_number_of_tags_per_asset"]["value"] == 0
    assert f"{name}: is not read: every user may write to it" in stranger.stderr
    file.chmod(0o644)
    own = run(trap, "config", "show", "--json")
    assert json.loads(own.stdout)["settings"]["maximum_number_of_tags_per_asset"]["value"] == 7
    assert f"settings from {name}" in own.stderr
    option = "--config" if name == "autotag.toml" else "--env-file"
    file.chmod(0o666)
    named = run(trap, option, name, "config", "show", "--json")
    assert json.loads(named.stdout)["settings"]["maximum_number_of_tags_per_asset"]["value"] == 7
    assert named.stderr == ""

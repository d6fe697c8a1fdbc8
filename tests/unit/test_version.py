"""The version is written in `worker/__init__.py`; whatever repeats it says the same."""

import datetime
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from worker import __version__

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "autotag"
RELEASE = r"\d+\.\d+\.\d+"  # PEP 440 for pip and SemVer for Helm at the same time
WRITTEN_BEHIND_THE_NAME = re.compile(rf"\bautotag(?:[-_]worker)?(?:[-:_ ]|==)v?({RELEASE})\b", re.IGNORECASE)


def version_of_a_build(directory: Path) -> str:
    """What `pip install` or `build` would call a package made from this directory."""
    metadata: ProjectMetadata[Any] = ProjectMetadata(str(directory), PluginManager())
    return metadata.version


def headings() -> list[str]:
    return re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_version_is_one_that_pip_and_helm_both_take() -> None:
    assert re.fullmatch(RELEASE, __version__)


def test_a_build_takes_it_from_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert version_of_a_build(ROOT) == __version__


def test_the_chart_has_the_version_of_what_it_installs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_chart_runs_the_image_of_its_version_unless_told_otherwise() -> None:
    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render({}, name="demo", namespace="dms")
    (deployment,) = (yaml.safe_load(text) for name, text in files.items() if name.endswith("/deployment.yaml"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"autotag:{__version__}"
    assert deployment["metadata"]["labels"]["app.kubernetes.io/version"] == __version__


def test_compose_runs_what_it_builds_and_names_no_version() -> None:
    service = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["autotag"]
    assert service["image"] == "autotag:latest"
    assert service["build"]["context"] == ".."


def test_the_changelog_begins_with_the_version() -> None:
    assert re.fullmatch(rf"{re.escape(__version__)} \((unreleased|\d{{4}}-\d\d-\d\d)\)", headings()[0])


def test_older_headings_of_the_changelog_are_releases_newest_first() -> None:
    found = [re.fullmatch(rf"({RELEASE}) \((\S+)\)", heading) for heading in headings()]
    versions = [tuple(map(int, each[1].split("."))) for each in found if each]
    assert len(versions) == len(found), "a heading is not of the form `X.Y.Z (date)`"
    assert versions == sorted(set(versions), reverse=True)
    dates = [datetime.date.fromisoformat(each[2]) for each in found if each and each[2] != "unreleased"]
    assert dates == sorted(dates, reverse=True)
    assert len(dates) >= len(found) - 1, "only the first may be unreleased"


def files_that_people_copy_from() -> list[Path]:
    below = (ROOT / name for name in ("deploy", "docs", "scripts", ".github"))
    found = [path for directory in below for path in directory.rglob("*") if path.is_file()]
    pages = (path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md")  # that one names older versions
    return [*pages, *ROOT.glob("*.toml"), *(path for path in found if path.suffix != ".png")]


def test_no_command_or_example_names_another_version() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in files_that_people_copy_from()
        for found in WRITTEN_BEHIND_THE_NAME.finditer(path.read_text(errors="replace"))
        if found[1] != __version__
    }
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [
        "autotag:9.8.7",
        "autotag-worker==9.8.7",
        "autotag_worker-9.8.7-py3-none-any.whl",
        "autotag-9.8.7.tgz",
        "Autotag v9.8.7",
    ],
)
def test_one_that_did_would_be_found(text: str) -> None:
    found = WRITTEN_BEHIND_THE_NAME.search(f"docker pull {text}")
    assert found
    assert found[1] == "9.8.7"


def test_the_image_builds_the_package_from_what_it_copies(tmp_path: Path) -> None:
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    (copied,) = re.findall(r"^COPY (pyproject\.toml .*) \./$", dockerfile, re.MULTILINE)
    for name in copied.split():
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "worker").mkdir()
    shutil.copy(ROOT / "worker/__init__.py", tmp_path / "worker")
    assert version_of_a_build(tmp_path) == __version__

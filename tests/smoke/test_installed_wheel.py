"""The wheel as a stranger gets it: installed into an environment of its own, run from a directory that is no checkout.

`make dist` builds, installs and runs this. `make test` does not: installing takes minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DATA = {
    "worker/py.typed",
    "worker/models/labels/imagenet.txt",
    "worker/http/page/static/autotag.css",
    "worker/http/page/static/autotag.js",
    "worker/http/page/static/mark.svg",
}
"""What the program reads and Python does not import."""

NEEDED_TO_BUILD = {"pyproject.toml", "README.md", "LICENSE", "worker/__init__.py"}
NEEDED_TO_TEST = {"Makefile", "constraints.txt", "tests/conftest.py", "tests/data/asyncapi-3.0.0.schema.json.gz"}
LEFT_OUT_OF_THE_SDIST = ("docs/images/", "bench/out/", ".git/")


class Installed:
    """Runs the environment's programs from an empty directory, and with little of the tests' own environment."""

    PASSED_ON = ("HOME", "LANG", "AUTOTAG_CACHE_DIR")

    def __init__(self, directory: Path, cwd: Path) -> None:
        self._directory = directory
        self.cwd = cwd
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            self.free_port = nobody.getsockname()[1]
        self.environment = {name: os.environ[name] for name in self.PASSED_ON if name in os.environ} | {
            "PATH": "/usr/bin:/bin",
            "AUTOTAG_AMQP__URL": "amqp://127.0.0.1:1/",
            "AUTOTAG_HTTP__PORT": str(self.free_port),
            "AUTOTAG_CONTROL_SOCKET": str(cwd / "control.sock"),
            "AUTOTAG_STATE_DIR": str(cwd / "state"),
            "AUTOTAG_TENSORFLOW__MODEL": "efficientnet-lite0",
        }

    def command(self, program: str, *words: str) -> list[str]:
        return [str(self._directory / program), *words]

    def run(self, program: str, *words: str, status: int = 0, timeout_s: float = 60, **settings: str) -> str:
        """What it printed; its exit status is as expected."""
        done = subprocess.run(
            self.command(program, *words),
            cwd=self.cwd,
            env=self.environment | settings,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def service(self) -> Iterator[subprocess.Popen[str]]:
        """`autotag run`, killed at the end if it has not ended by then."""
        process = subprocess.Popen(
            self.command("autotag", "run"),
            cwd=self.cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)


def named(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.fail(
            f"{variable} is not set: these tests are for a wheel that was built and installed; run `make dist`."
        )
    return Path(value)


@pytest.fixture(scope="session")
def dist() -> Path:
    """The directory with wheel, sdist and SBOM."""
    return named("AUTOTAG_TEST_DIST")


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (only,) = dist.glob("*.whl")
    return only


@pytest.fixture(scope="session")
def sdist(dist: Path) -> Path:
    (only,) = dist.glob("*.tar.gz")
    return only


@pytest.fixture(scope="session")
def version(wheel: Path) -> str:
    """The version that the wheel's name gives."""
    return wheel.name.split("-")[1]


@pytest.fixture(scope="session")
def bin_directory() -> Path:
    """The programs of the environment that the wheel was installed into."""
    return named("AUTOTAG_TEST_INSTALLED") / "bin"


@pytest.fixture
def installed(bin_directory: Path, tmp_path: Path) -> Installed:
    return Installed(bin_directory, tmp_path)


# What is in the files


def files_of(sdist: Path) -> dict[str, bytes]:
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        contents = {member.name.split("/", 1)[1]: archive.extractfile(member) for member in members}
        return {name: file.read() for name, file in contents.items() if file}


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(wheel: Path, sdist: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packaged = {
            name: archive.read(name) for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")
        }
    assert set(packaged) >= DATA
    assert packaged == {name: text for name, text in files_of(sdist).items() if name.startswith("worker/")}


def test_the_sdist_holds_what_building_and_testing_need(sdist: Path) -> None:
    names = set(files_of(sdist))
    assert names >= NEEDED_TO_BUILD | NEEDED_TO_TEST
    assert not [name for name in names if name.startswith(LEFT_OUT_OF_THE_SDIST)]


def test_a_wheel_built_from_the_sdist_has_the_same_bytes(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "again"), str(source)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (again,) = (tmp_path / "again").iterdir()
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


def test_the_sbom_lists_what_is_installed_and_nothing_of_this_machine(
    dist: Path, wheel: Path, version: str, installed: Installed
) -> None:
    (file,) = dist.glob("*.cdx.json")
    assert str(dist.parent) not in file.read_text()
    sbom = json.loads(file.read_text())
    described = sbom["metadata"]["component"]
    assert (described["name"], described["version"], described["type"]) == ("autotag-worker", version, "application")
    listed = {(canonicalize_name(each["name"]), each["version"]) for each in sbom["components"]}
    code = "import importlib.metadata as m, json; print(json.dumps([(d.name, d.version) for d in m.distributions()]))"
    present = {(canonicalize_name(name), found) for name, found in json.loads(installed.run("python", "-c", code))}
    assert listed == present - {("autotag-worker", version)}
    assert {name for name, _ in listed} >= required(wheel)


def required(wheel: Path) -> set[str]:
    """What the wheel depends on directly and without an extra."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name) for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    requirements = map(Requirement, message_from_bytes(metadata).get_all("Requires-Dist", []))
    return {canonicalize_name(each.name) for each in requirements if not each.marker or each.marker.evaluate()}


# What the installed program does


def test_what_runs_is_the_installed_package(installed: Installed) -> None:
    imported = Path(installed.run("python", "-c", "import worker; print(worker.__file__)").strip())
    assert imported.is_relative_to(named("AUTOTAG_TEST_INSTALLED"))
    assert imported.parent.parent.name == "site-packages"


def test_it_says_its_version(installed: Installed, version: str) -> None:
    assert installed.run("autotag", "--version") == f"autotag {version}\n"
    code = "import importlib.metadata as m; print(m.version('autotag-worker'))"
    assert installed.run("python", "-c", code) == f"{version}\n"


def test_it_explains_itself(installed: Installed) -> None:
    assert "autotag tag photo.jpg" in installed.run("autotag", "--help")


def test_it_shows_its_settings(installed: Installed) -> None:
    settings = json.loads(installed.run("autotag", "config", "show", "--json"))["settings"]
    assert settings["http.port"] == {"value": installed.free_port, "origin": "environment AUTOTAG_HTTP__PORT"}
    assert installed.run("autotag", "config", "show").split()[:3] == ["key", "value", "from"]


def test_its_schemas_are_those_of_the_source(installed: Installed, sdist: Path) -> None:
    installed.run("autotag", "schema", "--write", "schemas")
    written = {f"docs/schemas/{file.name}": file.read_bytes() for file in (installed.cwd / "schemas").iterdir()}
    assert written == {name: text for name, text in files_of(sdist).items() if name.startswith("docs/schemas/")}


def test_it_tags_a_photograph_and_finds_everything_but_the_broker_in_order(
    installed: Installed, photographs: dict[str, Path]
) -> None:
    installed.run("autotag", "model", "build", timeout_s=170)
    [line] = installed.run("autotag", "tag", "--json", str(photographs["coffee"])).splitlines()
    assert json.loads(line)["tags"][0]["name"] == "espresso"
    printed = installed.run("autotag", "check", "--json", status=3, AUTOTAG_DEFAULTS__TENSORFLOW__ENABLED="true")
    found = {each["subject"]: each["status"] for each in map(json.loads, printed.splitlines())}
    # The address of the broker is the default one, whose password everybody knows.
    assert found.pop("headers") == "warning"
    assert found.pop("rabbitmq") == "failed"
    assert found == dict.fromkeys(("switches", "sources", "directories", "decoder", "model"), "ok")


def test_the_service_serves_its_page_and_ends_when_asked_to(installed: Installed, sdist: Path) -> None:
    with installed.service() as process, httpx.Client(base_url=f"http://127.0.0.1:{installed.free_port}") as client:
        deadline_s = time.monotonic() + 30
        while not answers(client, "/livez"):
            assert process.poll() is None, "the service has ended"
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert "Autotag" in client.get("/").raise_for_status().text
        for name in ("autotag.css", "autotag.js", "mark.svg"):
            assert client.get(f"/page/{name}").content == files_of(sdist)[f"worker/http/page/static/{name}"], name
        process.terminate()
        assert process.wait(timeout=40) == 0


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False

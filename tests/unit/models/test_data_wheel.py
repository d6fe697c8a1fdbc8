"""A model in a data wheel: found without running anything, used where it lies, and only if it is the same build."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import write_package
from worker.errors import Misconfigured
from worker.models.build import ensure_model, ensure_models, present_model
from worker.models.catalogue import BUILT_IN, DETECTORS, find_package, known_models
from worker.models.manifest import ModelPackage
from worker.models.nanodet_weights import WeightsMissing
from worker.models.tensorflow_extra import TensorFlowMissing

LITE, NANODET = BUILT_IN["efficientnet-lite2"], DETECTORS["nanodet-320"]
Install = Callable[..., ModelPackage]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package where pip would put a data wheel's. Its code ends the test, should it be run."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(name: str, build: str, module: str = "autotag_model_efficientnet_lite2", **changes: Any) -> ModelPackage:
        directory = site / module
        directory.mkdir()
        (directory / "__init__.py").write_text("raise SystemExit('it was run')")
        (directory / "model.tflite").write_bytes(b"a model")
        return write_package(directory, "model.tflite", ["cat"], name=name, build=build, **changes)

    return put


@pytest.fixture
def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.mark.usefixtures("without_tensorflow")
def test_it_is_used_in_place_and_nothing_is_built(install: Install, tmp_path: Path) -> None:
    installed = install(LITE.name, LITE.build_key)
    cache = tmp_path / "cache"
    assert (
        find_package(LITE.name, cache) == ensure_model(LITE.name, cache) == present_model(LITE.name, cache) == installed
    )
    assert not cache.exists()
    assert installed.directory.name not in sys.modules


def test_it_is_listed(install: Install, tmp_path: Path) -> None:
    installed = install(LITE.name, LITE.build_key)
    [listed] = [known for known in known_models(tmp_path / "cache") if known.present and known.kind != "packaged"]
    assert (listed.name, listed.identity, listed.directory) == (LITE.name, installed.identity, installed.directory)
    assert listed.of_data_wheel == "autotag-model-efficientnet-lite2"


def test_that_of_the_detector_is_called_as_people_call_it(install: Install, tmp_path: Path) -> None:
    installed = install(NANODET.name, NANODET.build_key, "autotag_model_nanodet")
    assert ensure_model("nanodet", tmp_path / "cache") == ensure_model("nanodet-320", tmp_path / "cache") == installed


def test_a_damaged_one_is_refused(install: Install, tmp_path: Path) -> None:
    installed = install(LITE.name, LITE.build_key)
    installed.model_path.write_bytes(b"another")
    with pytest.raises(Misconfigured, match=r"model\.tflite has SHA-256 .* install the model again") as caught:
        ensure_model(LITE.name, tmp_path / "cache")
    assert caught.value.reason == "model_hash_mismatch"


@pytest.mark.parametrize(
    ("name", "build", "said"),
    [
        (LITE.name, "0123456789abcdef", "of another version than this Autotag.*of the build 0123456789abcdef"),
        ("efficientnet-lite1", LITE.build_key, "it holds efficientnet-lite1"),
    ],
)
def test_one_of_another_version_is_not_used(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, build: str, said: str
) -> None:
    install(name, build)
    cache = tmp_path / "cache"
    assert present_model(LITE.name, cache) is None, "it is built, where that is possible"
    [listed] = [known for known in known_models(cache) if known.data_wheel]
    assert (listed.name, listed.present, listed.of_data_wheel) == (LITE.name, False, None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(TensorFlowMissing, match=f"{said}.*Install the one that was released with this Autotag"):
        ensure_model(LITE.name, cache)


@pytest.mark.usefixtures("without_tensorflow")
def test_one_that_this_version_cannot_read_is_not_used(install: Install, tmp_path: Path) -> None:
    installed = install(LITE.name, LITE.build_key)
    (installed.directory / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(TensorFlowMissing, match=r"autotag-model-efficientnet-lite2 cannot be used: .*format"):
        ensure_model(LITE.name, tmp_path / "cache")


# Without the extra `tensorflow`


@pytest.mark.usefixtures("without_tensorflow")
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (
            "efficientnet-lite2",
            r"pip install autotag-model-efficientnet-lite2, .*; or pip install 'autotag-worker\[tens",
        ),
        ("nanodet", r"pip install autotag-model-nanodet, .*; or pip install 'autotag-worker\[tensorflow\]'"),
        ("efficientnet-lite0-float", r"what builds it: pip install 'autotag-worker\[tensorflow\]'$"),
    ],
)
def test_a_model_that_has_to_be_built_says_what_to_install(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(TensorFlowMissing, match=remedy) as caught:
        ensure_model(name, tmp_path)
    assert caught.value.reason == "tensorflow_missing"


@pytest.mark.usefixtures("without_tensorflow")
@pytest.mark.parametrize("runtime", ["saved_model", "graph_def"])
def test_a_model_that_only_tensorflow_runs_says_what_to_install(tmp_path: Path, runtime: str) -> None:
    (tmp_path / "model.pb").write_bytes(b"")
    write_package(tmp_path, "model.pb", ["cat"], runtime=runtime)
    with pytest.raises(TensorFlowMissing, match=rf"small is a {runtime}.*pip install 'autotag-worker\[tensorflow\]'"):
        ensure_model(str(tmp_path), tmp_path / "cache")


@pytest.mark.usefixtures("without_tensorflow")
def test_a_detector_that_cannot_be_had_is_left_out_and_a_classifier_is_not(install: Install, tmp_path: Path) -> None:
    with pytest.raises(TensorFlowMissing, match="efficientnet-lite2"):
        ensure_models(["efficientnet-lite2", "nanodet"], tmp_path / "cache")
    installed = install(LITE.name, LITE.build_key)
    assert ensure_models(["efficientnet-lite2", "nanodet"], tmp_path / "cache").packages == (installed,)
    with pytest.raises(TensorFlowMissing, match="nanodet"):
        ensure_models(["nanodet"], tmp_path / "cache")


def test_with_the_extra_it_is_the_weights_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="autotag model build nanodet-320"):
        ensure_model("nanodet", tmp_path)

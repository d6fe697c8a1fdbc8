"""Data wheels as `make dist` makes them: the same bytes each time, the licences inside, and found once installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import make_model_wheels
import pytest

from tests.support.models import write_package
from worker import __version__
from worker.models.catalogue import BUILT_IN, DETECTORS
from worker.models.manifest import ModelPackage

LITE, NANODET = BUILT_IN["efficientnet-lite2"], DETECTORS["nanodet-320"]


def package(directory: Path, name: str, **changes: Any) -> ModelPackage:
    directory.mkdir()
    (directory / "model.tflite").write_bytes(os.urandom(1000))
    return write_package(directory, "model.tflite", ["cat"], name=name, **changes)


def make(model: ModelPackage, out: Path) -> Path:
    out.mkdir()
    return make_model_wheels.make_wheel(model, out)


def test_the_same_package_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    model = package(tmp_path / "model", LITE.name, build=LITE.build_key)
    first = make(model, tmp_path / "first")
    for file in model.directory.iterdir():
        file.chmod(0o600)
        os.utime(file, (0, 0))
    second = make(model, tmp_path / "second")
    assert first.name == second.name == f"autotag_model_efficientnet_lite2-{__version__}-py3-none-any.whl"
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def test_the_licences_of_both_its_authors_are_in_that_of_nanodet(tmp_path: Path) -> None:
    wheel = make(package(tmp_path / "model", NANODET.name, build=NANODET.build_key), tmp_path / "out")
    assert wheel.name.startswith("autotag_model_nanodet-")
    folder = f"autotag_model_nanodet-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        notice = archive.read(f"{folder}/licenses/NOTICE").decode()
        assert "Apache License" in archive.read(f"{folder}/licenses/LICENSE").decode()
        assert "License-Expression: Apache-2.0 AND MIT" in archive.read(f"{folder}/METADATA").decode()
    assert "RangiLyu" in notice
    assert "Copyright (c) 2021 Vladimir Mandic" in notice
    assert "Permission is hereby granted, free of charge" in notice


def test_what_pip_installs_is_found(tmp_path: Path) -> None:
    model = package(tmp_path / "model", LITE.name, build=LITE.build_key)
    wheel, there = make(model, tmp_path / "out"), tmp_path / "there"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", str(there), str(wheel)]
    subprocess.run(pip, check=True, timeout=60)
    code = f"from worker.models.catalogue import *; print(find_package({LITE.name!r}, Path('/nowhere')).directory)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{there}:{make_model_wheels.ROOT}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"{there}/autotag_model_efficientnet_lite2\n"


def test_of_a_model_whose_authors_are_not_named_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no notice"):
        make(package(tmp_path / "model", "cats"), tmp_path / "out")


def test_of_a_saved_model_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only LiteRT models"):
        make(package(tmp_path / "model", "efficientnet-lite2-float", runtime="saved_model"), tmp_path / "out")

"""Manifests: what is written is read back, and what is wrong is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import ROOT, write_package
from worker.errors import Misconfigured
from worker.images.requests import Fit, Interpolation, PixelRecipe
from worker.models.manifest import ModelMissing, ModelPackage, write_manifest


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    (tmp_path / "model.tflite").write_bytes(b"model")
    return write_package(tmp_path, "model.tflite", ["cat", "dog"])


def change(package: ModelPackage, *keys: str, value: object) -> None:
    path = package.directory / "manifest.json"
    manifest = table = json.loads(path.read_text())
    for key in keys[:-1]:
        table = table[key]
    table[keys[-1]] = value
    path.write_text(json.dumps(manifest))


def test_a_manifest_survives_writing_and_reading(package: ModelPackage) -> None:
    write_manifest(package.directory, package.manifest)
    assert ModelPackage.load(package.directory) == package


def test_the_labels_come_in_the_files_order(package: ModelPackage) -> None:
    assert package.labels == ("cat", "dog")


def test_the_identity_is_the_name_and_the_beginning_of_the_hash(package: ModelPackage) -> None:
    assert package.identity == "small@9372c470eeadd5ec"[: len("small@") + 12]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("runtime",), "onnx"),
        (("model", "sha256"), "abc"),
        (("model", "file"), "../model.tflite"),
        (("model", "file"), "/etc/passwd"),
        (("labels", "file"), ""),
        (("input", "size"), 0),
        (("input", "size"), "large"),
        (("input", "fit"), "stretch"),
        (("input", "scale"), 0),
        (("input", "interpolation"), "nearest"),
        (("output", "temperature"), -1),
        (("output", "activation"), "relu"),
        (("output", "label_offset"), -1),
        (("output", "surprise"), 1),
        (("name",), "a/b"),
        (("format",), 2),
    ],
)
def test_a_wrong_value_is_refused_and_its_key_named(
    package: ModelPackage, keys: tuple[str, ...], value: object
) -> None:
    change(package, *keys, value=value)
    with pytest.raises(Misconfigured) as caught:
        ModelPackage.load(package.directory)
    assert caught.value.reason == "model_manifest"
    assert f"manifest.json: {'.'.join(keys)}: " in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"manifest"', "\xff"])
def test_what_is_no_manifest_is_refused(package: ModelPackage, text: str) -> None:
    (package.directory / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(Misconfigured, match=r"manifest\.json"):
        ModelPackage.load(package.directory)


def test_a_directory_without_a_manifest_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="is not a model package"):
        ModelPackage.load(tmp_path)
    with pytest.raises(ModelMissing, match="is not a model package"):
        ModelPackage.load(tmp_path / "nowhere")


def test_an_untouched_package_is_verified(package: ModelPackage) -> None:
    package.verify()


@pytest.mark.parametrize("name", ["model.tflite", "labels.txt"])
def test_a_changed_file_is_named(package: ModelPackage, name: str) -> None:
    (package.directory / name).write_bytes(b"changed")
    with pytest.raises(Misconfigured, match=name) as caught:
        package.verify()
    assert caught.value.reason == "model_hash_mismatch"


def test_a_missing_file_is_named(package: ModelPackage) -> None:
    (package.directory / "model.tflite").unlink()
    with pytest.raises(ModelMissing, match=r"model\.tflite"):
        package.verify()


def test_a_changed_file_in_a_model_of_several_files_is_found(tmp_path: Path) -> None:
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "variables" / "data").write_bytes(b"1")
    package = write_package(tmp_path, "model", ["cat"], runtime="saved_model")
    package.verify()
    (tmp_path / "model" / "variables" / "data").rename(tmp_path / "model" / "data")
    with pytest.raises(Misconfigured, match="SHA-256"):
        package.verify()


def test_a_crop_is_the_middle_square_less_its_margin(package: ModelPackage) -> None:
    change(package, "input", value={"size": 224, "fit": "crop", "margin": 32, "interpolation": "bicubic"})
    recipe = ModelPackage.load(package.directory).manifest.recipe()
    assert recipe == PixelRecipe(224, Fit.CROP, 32, Interpolation.BICUBIC)
    assert recipe.box(512, 256) == (144, 16, 368, 240)


def test_a_squash_is_the_whole_picture() -> None:
    assert PixelRecipe(224, Fit.SQUASH, 0, Interpolation.BILINEAR).box(512, 256) == (0, 0, 512, 256)


def test_the_parents_side_needs_no_numpy(package: ModelPackage) -> None:
    modules: Any = ["build", "catalogue", "install", "download", "manifest", "staging", "labels"]
    imports = "; ".join(f"import worker.models.{module}" for module in modules)
    check = "import sys; print(sorted({'numpy', 'tensorflow', 'PIL', 'ai_edge_litert'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {check}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"

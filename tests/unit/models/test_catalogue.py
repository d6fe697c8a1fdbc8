"""The catalogue, and the architecture of the models that it builds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.models import write_package
from worker.models.builder.efficientnet_lite import VARIANTS, blocks, scaled_channels
from worker.models.catalogue import BUILT_IN, DEFAULT_MODEL, PACKAGED, find_package, known_models
from worker.models.manifest import ModelMissing


def test_the_default_is_in_it() -> None:
    assert DEFAULT_MODEL in BUILT_IN


def test_every_build_has_a_directory_of_its_own(tmp_path: Path) -> None:
    assert len({model.directory(tmp_path) for model in BUILT_IN.values()}) == len(BUILT_IN) == 6


def test_the_weights_of_all_are_installed() -> None:
    assert all(model.weights_path().is_file() for model in BUILT_IN.values())


def test_nothing_is_there_in_an_empty_cache_but_what_comes_with_autotag(tmp_path: Path) -> None:
    assert {known.name for known in known_models(tmp_path) if known.present} == set(PACKAGED)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("efficientnet-lite2", "autotag model build efficientnet-lite2"),
        ("inception5h", "autotag model install inception5h"),
        ("nonsense", "give one of efficientnet-lite0"),
    ],
)
def test_a_missing_model_says_how_to_get_it(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(ModelMissing, match=remedy) as caught:
        find_package(name, tmp_path)
    assert caught.value.reason == "model_missing"


def test_a_model_can_be_named_by_its_directory(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"")
    written = write_package(tmp_path, "model.tflite", ["cat"])
    assert find_package(str(tmp_path), tmp_path / "cache") == written


@pytest.mark.parametrize(
    ("name", "count", "widest"),
    [("efficientnet-lite0", 16, 320), ("efficientnet-lite1", 21, 320), ("efficientnet-lite2", 21, 352)],
)
def test_depth_and_width_grow_with_the_size(name: str, count: int, widest: int) -> None:
    found = list(blocks(VARIANTS[name]))
    assert len(found) == count
    assert found[-1].channels_out == widest
    assert all(after.channels_in == before.channels_out for before, after in pairwise(found))


def test_channels_are_multiples_of_eight_and_never_much_smaller() -> None:
    assert [scaled_channels(channels, 1.1) for channels in (16, 24, 40, 80, 112, 192, 320)] == [
        16, 24, 48, 88, 120, 208, 352
    ]  # fmt: skip
    assert all(scaled_channels(channels, 0.37) >= 0.9 * 0.37 * channels for channels in range(8, 400))

"""Several local models beside each other, as one: real ones, in the real child and service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from platformdirs import user_cache_path

from tests.support.models import built, picture, run_python
from tests.support.service import Dms, RunningService, running_service
from worker.errors import CannotBeDone
from worker.models.catalogue import DEFAULT_MODELS, PACKAGED
from worker.models.manifest import ModelPackage
from worker.models.nanodet_weights import weights_are_in, weights_directory
from worker.models.runtimes import open_runtime
from worker.models.runtimes.together import Together
from worker.models.selection import LocalModels
from worker.supervision.model_pool import ModelOptions, ModelPool
from worker.vocabulary import languages, names

pytestmark = pytest.mark.timeout(600)  # the first run on a machine builds the models


@pytest.fixture(scope="module")
def nanodet() -> ModelPackage:
    """NanoDet for 320 pixels; its weights are fetched by `autotag model build nanodet`, and never by a test."""
    cache = Path(os.environ.get("AUTOTAG_CACHE_DIR") or user_cache_path("autotag"))
    if not weights_are_in(weights_directory(cache)):
        pytest.skip(f"NanoDet's weights are not in {weights_directory(cache)}: `autotag model build nanodet`")
    return built("nanodet")


@pytest.fixture(scope="module")
def two() -> LocalModels:
    """A classifier, and the head that reads its features."""
    return LocalModels((built("efficientnet-lite2"), ModelPackage.load(PACKAGED["picture-kind"])))


def squares(models: LocalModels, paths: list[Path]) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    return [np.stack([picture(path, recipe) for path in paths]) for recipe in models.recipes]


def test_each_scores_what_it_scores_alone(two: LocalModels, photographs: dict[str, Path]) -> None:
    seen = squares(two, list(photographs.values()))
    scores = Together(two.packages, 2).score(seen)
    assert scores.shape == (5, 1000 + 10)
    alone = open_runtime(two.packages[0], 2)
    np.testing.assert_allclose(scores[:, :1000], alone.score(seen[0]), atol=1e-5)
    features = np.stack([np.asarray(each.result().features) for each in alone.submit(seen[0], alone=False)])
    assert features.shape == (5, 1280)
    np.testing.assert_allclose(scores[:, 1000:], open_runtime(two.packages[1]).score(features), atol=1e-5)


def test_a_detector_looks_at_a_square_of_its_own(nanodet: ModelPackage, photographs: dict[str, Path]) -> None:
    models = LocalModels((built("efficientnet-lite2"), nanodet))
    assert [recipe.size for recipe in models.recipes] == [260, 320]
    scores = Together(models.packages, 2).score(squares(models, list(photographs.values())))
    names = list(photographs)
    person, cat, motorcycle = (1000 + nanodet.labels.index(name) for name in ("person", "cat", "motorcycle"))
    assert scores[names.index("astronaut"), person] > 0.6
    assert scores[names.index("chelsea"), cat] > 0.5
    assert scores[names.index("motorcycle_left"), motorcycle] > 0.6
    assert scores[names.index("coffee"), person] < 0.4


@pytest.mark.parametrize("name", ["nanodet-320", "nanodet-416"])
def test_the_int8_detector_sees_what_the_float_one_sees(name: str, nanodet: ModelPackage, images100: Path) -> None:
    package = nanodet if name == nanodet.manifest.name else built(name)
    weights = weights_directory(Path(os.environ.get("AUTOTAG_CACHE_DIR") or user_cache_path("autotag")))
    printed = run_python("tests.support.detector_agreement", package.directory, weights, images100)
    share, number = map(float, printed.split())
    assert number == 100
    assert share >= 0.95


async def test_the_child_runs_them_as_one_and_refuses_pixels_of_another_length(
    two: LocalModels, photographs: dict[str, Path]
) -> None:
    options = ModelOptions(tuple(package.directory for package in two.packages), threads=2)
    pixels = squares(two, [photographs["chelsea"]])[0].tobytes()
    async with ModelPool(options) as pool:
        await pool.wait_started()
        [child] = pool.states()
        assert child.hello["identity"] == two.identity
        assert child.hello["labels"] == 1010
        fd = os.memfd_create("pixels")
        try:
            os.write(fd, pixels)
            scores = await pool.score(fd, 0.0)
            assert len(scores) == 1000, "no more are given than fit"
            best = {index for index, _ in scores[:3]}
            assert best & {281, 282, 285}, "a cat of some kind"
            assert max(scores, key=lambda pair: (pair[0] >= 1000, pair[1]))[0] != 1000, "photograph is never a tag"
            os.write(fd, b"one more")
            with pytest.raises(CannotBeDone, match="its pixels are not 202800 bytes"):
                await pool.score(fd, 0.5)
        finally:
            os.close(fd)


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-several-models-{os.getpid()}"


@pytest.fixture(scope="module")
def service(
    broker: str, prefix: str, photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service")
    write_page(folder / "page.png")
    settings = {
        "SOURCES__PATH_ROOTS": json.dumps([str(photographs["chelsea"].parent), str(folder)]),
        "TENSORFLOW__MODELS": json.dumps(DEFAULT_MODELS),
    }
    with running_service(broker, prefix, folder, **settings) as service:
        yield service.ready(within_s=240)
        assert service.stop() == 0


def write_page(file: Path) -> None:
    """A printed page, as a scanner sees it."""
    page = Image.new("L", (1240, 1754), 250)
    draw = ImageDraw.Draw(page)
    words = ("the quick brown fox jumps over the lazy dog", "and is billed for it in due course")
    for line in range(38):
        text = f"{words[line % 2]} {line:04}"
        draw.text((130, 130 + line * 40), text if line % 9 else "", fill=20, font_size=26)
    page.save(file)


def test_the_service_tags_with_all_models_of_the_defaults(
    dms: Dms, service: RunningService, photographs: dict[str, Path]
) -> None:
    page = service.log.parent / "page.png"
    events = {dms.publish({"path": str(file)}, asset_id=file.stem): file.stem for file in (*photographs.values(), page)}
    found = {events[key]: messages[0].data for key, messages in dms.results_of(events).items()}
    tags = {asset: {tag["name"]: tag for tag in data["tags"]} for asset, data in found.items()}
    assert {"cat", "animal"} <= tags["chelsea"].keys()
    assert "motorcycle" in tags["motorcycle_left"]
    assert {tag["kind"] for tag in tags["page"].values()} == {"image_kind"}, (
        "what a photograph shows is no tag of a page"
    )
    assert tags["page"].keys() <= {"document", "form", "receipt", "text"}
    models = found["chelsea"]["providers"][0]["model"]
    assert "efficientnet-lite2@" in models
    assert "picture-kind@" in models


def test_with_the_detector_a_person_is_a_person(
    nanodet: ModelPackage, dms: Dms, service: RunningService, photographs: dict[str, Path]
) -> None:
    key = dms.publish({"path": str(photographs["astronaut"])}, asset_id="astronaut")
    [message] = dms.results_of([key])[key]
    tags = {tag["name"]: tag for tag in message.data["tags"]}
    assert tags["person"]["kind"] == "object"
    key = dms.publish({"path": str(photographs["motorcycle_left"])}, asset_id="motorcycle", locale="de-AT")
    [message] = dms.results_of([key])[key]
    tags = {tag["name"]: tag for tag in message.data["tags"]}
    assert tags["Motorrad"]["models"] == ["efficientnet-lite2", "nanodet-320"]


def test_the_same_photograph_has_the_same_concepts_in_each_language(
    dms: Dms, service: RunningService, photographs: dict[str, Path]
) -> None:
    content = {"path": str(photographs["chelsea"])}
    events = {dms.publish(content, asset_id=f"chelsea-{each}", locale=f"{each}-XX"): each for each in languages()}
    tags = {events[key]: messages[0].data["tags"] for key, messages in dms.results_of(events).items()}
    assert len(tags) == 9
    assert len({tuple(sorted(tag["concept"] for tag in each)) for each in tags.values()}) == 1
    for language, each in tags.items():
        assert {tag["name"] for tag in each} == {names(language)[tag["concept"]] for tag in each}
        assert {tag["language"] for tag in each} == {language}
    assert {tags[each][1]["name"] for each in ("de", "fr", "ja")} <= {"Katze", "chat", "猫", "Tier", "animal", "動物"}


def test_weights_that_are_not_there_leave_the_others_at_work_and_are_named_once(
    broker: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    cache = tmp_path / "cache"
    (cache / "models").mkdir(parents=True)
    package = built("efficientnet-lite2")
    (cache / "models" / package.directory.name).symlink_to(package.directory)
    settings = {"TENSORFLOW__MODELS": json.dumps(DEFAULT_MODELS), "CACHE_DIR": str(cache)}
    with running_service(broker, f"test-no-weights-{os.getpid()}", tmp_path / "run", **settings) as service:
        service.ready(within_s=240)
        assert service.logged().count("a model is left out") == 1
        assert "`autotag model build nanodet-320` fetches them once" in service.logged()
        assert service.stop() == 0

"""The real model child: pixels in, labels out; a damaged or missing package disables it with the reason."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from tests.support.children import NoticeRecorder
from tests.support.models import built
from tests.support.polling import eventually
from tests.support.processes import alive
from worker.errors import CannotBeDone, Unavailable
from worker.images.content import Content
from worker.models.manifest import ModelPackage
from worker.supervision.decoder_pool import DecoderPool
from worker.supervision.model_pool import ModelOptions, ModelPool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return built("efficientnet-lite0")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(package: ModelPackage) -> AsyncIterator[ModelPool]:
    async with ModelPool(ModelOptions(packages=(package.directory,), threads=1)) as pool:
        await pool.wait_ready()
        yield pool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoders() -> AsyncIterator[DecoderPool]:
    async with DecoderPool() as pool:
        yield pool


def noise(package: ModelPackage, seed: int = 0) -> Content:
    size = package.manifest.input.size
    pixels = np.random.default_rng(seed).integers(0, 256, size * size * 3, np.uint8)
    return Content.from_bytes(pixels.tobytes(), "noise")


def open_photograph(path: Path) -> Content:
    return Content.from_bytes(path.read_bytes(), f"path {path.name}")


async def first_label(
    package: ModelPackage, decoders: DecoderPool, model: ModelPool, photograph: Path
) -> tuple[str, float]:
    with open_photograph(photograph) as content:
        decoded = await decoders.decode(content, (package.manifest.recipe(),), photograph.name)
    assert decoded.pixels_fd is not None
    try:
        scores = await model.score(decoded.pixels_fd, 0.1, photograph.name)
    finally:
        os.close(decoded.pixels_fd)
    index, confidence = scores[0]
    return package.labels[index], confidence


async def test_photographs_are_recognised(
    package: ModelPackage, decoders: DecoderPool, model: ModelPool, photographs: dict[str, Path]
) -> None:
    name, confidence = await first_label(package, decoders, model, photographs["coffee"])
    assert "espresso" in name.lower()
    assert 0.1 <= confidence <= 1.0
    cat, _ = await first_label(package, decoders, model, photographs["chelsea"])
    assert "cat" in cat.lower() or "tabby" in cat.lower()


async def test_the_child_reports_what_it_runs(package: ModelPackage, model: ModelPool) -> None:
    [child] = model.states()
    assert child.hello["identity"] == package.identity
    assert child.hello["labels"] == 1000
    assert child.hello["sizes"] == [package.manifest.input.size]
    assert child.resident_bytes > 20 << 20


async def test_scores_are_in_descending_order_and_not_below_the_floor(package: ModelPackage, model: ModelPool) -> None:
    with noise(package) as pixels:
        everything = await model.score(pixels.fd, 0.0, "noise")
        middle = everything[10][1]
        some = await model.score(pixels.fd, middle, "noise")
        none = await model.score(pixels.fd, 1.0, "noise")
    assert len(everything) == 1000
    assert sorted(index for index, _ in everything) == list(range(1000))
    confidences = [confidence for _, confidence in everything]
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) == pytest.approx(1.0, abs=0.02)
    assert some == everything[: len(some)]
    assert len(some) >= 11, "a floor is inclusive"
    assert none == []


async def test_an_image_scores_the_same_alone_and_in_any_batch(package: ModelPackage, model: ModelPool) -> None:
    contents = [noise(package, seed) for seed in range(8)]
    together = await asyncio.gather(*(model.score(each.fd, 0.001, "noise") for each in contents))
    for content, scores in zip(contents, together, strict=True):
        alone = await model.score(content.fd, 0.001, "noise")
        assert [index for index, _ in alone] == [index for index, _ in scores]
        assert [value for _, value in alone] == pytest.approx([value for _, value in scores], abs=1e-6)
        content.close()


async def test_pixels_of_the_wrong_length_are_refused_alone(package: ModelPackage, model: ModelPool) -> None:
    pid = model.states()[0].pid
    with noise(package) as good, Content.from_bytes(b"short", "short") as short:
        answers = await asyncio.gather(
            *(model.score(fd, 0.1, "asset-7") for fd in (good.fd, short.fd, good.fd)), return_exceptions=True
        )
    assert isinstance(answers[1], CannotBeDone)
    assert answers[1].reason == "pixels_wrong_length"
    assert "asset-7" in str(answers[1])
    assert isinstance(answers[0], list)
    assert answers[0] == answers[2]
    assert model.states()[0].pid == pid


def another_child(pool: ModelPool, pid: int) -> bool:
    """Whether the first child of the pool has been launched again, `pid` being the one before."""
    return pool.states()[0].pid not in (None, pid)


async def test_a_kill_under_load_loses_nothing(package: ModelPackage) -> None:
    recorder = NoticeRecorder()
    async with ModelPool(ModelOptions(packages=(package.directory,), threads=1), observe=recorder) as pool:
        await pool.wait_ready()
        contents = [noise(package, seed) for seed in range(60)]
        answers = asyncio.gather(*(pool.score(each.fd, 0.0, "noise") for each in contents))
        for _ in range(3):
            await eventually(lambda: pool.states()[0].phase == "busy", "the child is busy")
            pid = pool.states()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await eventually(partial(another_child, pool, pid), "another child was launched")
        assert [len(scores) for scores in await answers] == [1000] * 60
        assert len(recorder.crashes()) == 3
        for content in contents:
            content.close()


async def test_it_stops_cleanly_when_asked(package: ModelPackage) -> None:
    recorder = NoticeRecorder()
    pool = ModelPool(ModelOptions(packages=(package.directory,), threads=1), observe=recorder)
    await pool.start()
    await pool.wait_ready()
    pid = pool.states()[0].pid
    assert pid is not None
    await pool.close()
    assert not alive([pid])
    assert recorder.crashes() == []


async def test_a_damaged_model_disables_at_once_and_names_the_file(package: ModelPackage, tmp_path: Path) -> None:
    copy = shutil.copytree(package.directory, tmp_path / "copy")
    model_file = copy / package.manifest.model.file
    model_file.write_bytes(model_file.read_bytes()[:-1] + b"\0")
    recorder = NoticeRecorder()
    async with ModelPool(ModelOptions(packages=(copy,)), observe=recorder) as pool:
        with pytest.raises(Unavailable, match=package.manifest.model.file):
            await pool.wait_ready()
        assert pool.disabled_reason is not None
        assert "SHA-256" in pool.disabled_reason
    assert len(recorder.crashes()) == 1


async def test_a_missing_model_disables_at_once(tmp_path: Path) -> None:
    async with ModelPool(ModelOptions(packages=(tmp_path / "nothing",))) as pool:
        with pytest.raises(Unavailable, match="nothing"):
            await pool.wait_ready()

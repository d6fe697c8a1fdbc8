"""How many children and threads suit this machine: short runs with the real decoders and model, no broker.

A run keeps as many images in hand as the service would take deliveries, and counts what comes back. First decoders
and threads are varied together, then the size of a batch, and at last the best are tried again: the rate of a short
measurement is uncertain, and the luckiest of many is not the best.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from worker.engine import Engine, open_engine
from worker.errors import Misconfigured, Unavailable
from worker.images.content import Content
from worker.images.format import HEAD_BYTES
from worker.images.requests import JpegLimits
from worker.models.staging import ProgressCallback, ignore_progress
from worker.operations.metrics import Metrics
from worker.settings import InstanceSettings, Settings
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool
from worker.tagging.explain import explain

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
"""Shipped by scikit-image, and made into JPEGs of the size that web pages have."""

WEB_SIZE = JpegLimits(maximum_bytes=200_000, maximum_width=500, maximum_height=375)
BATCH_SIZES = (1, 2, 4, 8, 16)
FINALISTS = 3
FINAL_ROUNDS = 2

_WARM_UP_SHARE = 0.3
_START_S = 1.2
"""What it takes to start and end the children of one measurement, as the budget reckons with."""

_SHORTEST_TRIAL_S = 1.0
_FEWEST = 3
_MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is varied; each is a setting of the same meaning."""

    decoders: int
    threads: int
    batch_size: int

    def toml(self) -> str:
        """The candidate as it stands in a settings file."""
        return (
            f"[decoder]\nchildren = {self.decoders}\n\n"
            f"[tensorflow]\nthreads = {self.threads}\nbatch_size = {self.batch_size}\n"
        )

    def applied_to(self, settings: Settings) -> Settings:
        """The settings with this candidate."""
        tensorflow = {"threads": self.threads, "batch_size": self.batch_size}
        return settings.model_copy(
            update={
                "decoder": settings.decoder.model_copy(update={"children": self.decoders}),
                "tensorflow": settings.tensorflow.model_copy(update=tensorflow),
            }
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """One candidate, tried once."""

    candidate: Candidate
    images_per_s: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """The best candidate with its rate, the median of its measurements, and every measurement in order."""

    best: Candidate
    images_per_s: float
    measurements: tuple[Measurement, ...]


def current(settings: Settings) -> Candidate:
    """What the settings say, as it is on this machine."""
    cores = len(os.sched_getaffinity(0))
    return Candidate(
        settings.decoder.children or cores, settings.tensorflow.threads or cores, settings.tensorflow.batch_size
    )


def candidates(cores: int, batch_size: int) -> list[Candidate]:
    """Decoders and threads worth trying together on so many cores."""
    decoders = sorted({max(1, cores // 2), max(1, cores - 1), cores, cores + 1})
    threads = sorted({1, max(1, cores // 2), cores})
    return [Candidate(*pair, batch_size) for pair in itertools.product(decoders, threads)]


async def tune(
    settings: Settings,
    contents: Sequence[Content],
    seconds: float,
    on_measured: Callable[[Measurement], None] = lambda _: None,
) -> Tuning:
    """Try what is worth trying, in about `seconds`. `on_measured` gets every measurement.

    Raises Misconfigured, Unavailable.
    """
    cores = len(os.sched_getaffinity(0))
    grid = candidates(cores, settings.tensorflow.batch_size)
    number = len(grid) + len(BATCH_SIZES) - 1 + FINALISTS * FINAL_ROUNDS
    trial_s = max(_SHORTEST_TRIAL_S, seconds / number - _START_S)
    measurements: list[Measurement] = []

    async def attempt(candidate: Candidate) -> None:
        measurements.append(Measurement(candidate, await rate(candidate.applied_to(settings), contents, trial_s)))
        on_measured(measurements[-1])

    for candidate in grid:
        await attempt(candidate)
    first = _ranked(measurements)[0]
    for batch_size in BATCH_SIZES:
        if batch_size != first.batch_size:
            await attempt(Candidate(first.decoders, first.threads, batch_size))
    for candidate in _ranked(measurements)[:FINALISTS] * FINAL_ROUNDS:
        await attempt(candidate)
    # Only those that were tried again count: of the others the luckiest would win.
    best = next(candidate for candidate in _ranked(measurements) if _times_tried(candidate, measurements) > 1)
    return Tuning(best, _median(best, measurements), tuple(measurements))


async def rate(
    settings: Settings, contents: Sequence[Content], seconds: float, progress: ProgressCallback = ignore_progress
) -> float:
    """Images a second under some settings, without RabbitMQ. Raises Misconfigured, Unavailable."""
    settings = _only_the_local_model(settings)
    engine = await open_engine(settings, Metrics(), progress=progress)
    try:
        assert engine.model is not None  # noqa: S101 - the settings have it on
        await asyncio.gather(engine.decoders.wait_ready(), engine.model.wait_ready())
        return await _count(engine, settings, contents, seconds)
    finally:
        await engine.close()


async def web_size_photographs(stack: ExitStack) -> list[Content]:
    """Photographs of web size, made by a decoder child; `stack` closes them. Raises Misconfigured where none are."""
    spec = importlib.util.find_spec("skimage")  # finding it does not run it, and with it NumPy
    if spec is None or spec.origin is None:
        raise Misconfigured(
            "there are no photographs: pip install scikit-image, or name a directory", reason="photographs"
        )
    made = []
    async with DecoderPool(DecoderOptions()) as decoders:
        for name in PHOTOGRAPHS:
            with open_file(Path(spec.origin).with_name("data") / name) as original:
                jpeg = await decoders.shrink(original, WEB_SIZE, name)
            made.append(stack.enter_context(Content.from_bytes(jpeg, name)))
    return made


def open_file(file: Path) -> Content:
    """An image file as it is."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    return Content(fd, os.fstat(fd).st_size, f"path {file}", os.pread(fd, HEAD_BYTES, 0))


async def _count(engine: Engine, settings: Settings, contents: Sequence[Content], seconds: float) -> float:
    """Keep enough images in hand for a while; count those that come back after the warm-up."""
    began_s = time.monotonic()
    counting_from_s, until_s = began_s + seconds * _WARM_UP_SHARE, began_s + seconds
    finished_s: list[float] = []
    turn = itertools.cycle(contents)

    async def one_after_the_other() -> None:
        while time.monotonic() < until_s:
            await _tag(engine, settings, next(turn))
            finished_s.append(time.monotonic())

    hands = min(settings.amqp.prefetch, _MOST_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        for _ in range(hands):
            group.create_task(one_after_the_other())
    # From one finish to another: images come in batches, and a window with edges of its own would cut them.
    counted_s = [moment_s for moment_s in sorted(finished_s) if counting_from_s <= moment_s <= until_s]
    if len(counted_s) < _FEWEST:
        raise Unavailable(
            f"only {len(counted_s)} images were finished in {seconds:.1f} s: measure for longer", reason="too_short"
        )
    return (len(counted_s) - 1) / (counted_s[-1] - counted_s[0])


async def _tag(engine: Engine, settings: Settings, content: Content) -> None:
    explanation = await explain(engine.tagger, settings, content, asset_id="the image", all_labels=False)
    if explanation.result.status not in ("tagged", "no_tags"):
        raise Unavailable("the local model did not answer", reason="no_answer")


def _only_the_local_model(settings: Settings) -> Settings:
    """Nothing that costs money takes part, and no instance has anything of its own."""
    local = settings.defaults.tensorflow.model_copy(update={"enabled": True})
    instance = InstanceSettings(tensorflow=local)
    return settings.model_copy(update={"enabled": True, "instances": {}, "defaults": instance})


def _ranked(measurements: Sequence[Measurement]) -> list[Candidate]:
    """Every candidate once, the fastest first."""
    candidates_tried = dict.fromkeys(measurement.candidate for measurement in measurements)
    return sorted(candidates_tried, key=lambda candidate: -_median(candidate, measurements))


def _median(candidate: Candidate, measurements: Sequence[Measurement]) -> float:
    return statistics.median(
        measurement.images_per_s for measurement in measurements if measurement.candidate == candidate
    )


def _times_tried(candidate: Candidate, measurements: Sequence[Measurement]) -> int:
    return sum(measurement.candidate == candidate for measurement in measurements)

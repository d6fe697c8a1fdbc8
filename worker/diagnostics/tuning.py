"""Measures how many children and threads suit this machine: short runs with the real decoders and model, no broker.

A run keeps as many images in progress as the service would hold deliveries, and counts those that are finished. First
decoders and threads are varied together, then the batch size, and finally the fastest candidates are measured again:
the rate of one short measurement is uncertain, and the luckiest of many candidates is not the best.
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

from worker.diagnostics.first_starts import FirstStarts
from worker.engine import Engine, open_engine
from worker.errors import Misconfigured, Unavailable
from worker.images.content import Content
from worker.images.format import HEAD_BYTES
from worker.images.requests import JpegLimits
from worker.messages import DEFAULT_INSTANCE
from worker.models.staging import ProgressCallback, ignore_progress
from worker.operations.metrics import Metrics
from worker.settings import InstanceSettings, Settings
from worker.supervision.cgroup import usable_cores
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool
from worker.tagging.explain import explain

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
"""Shipped with scikit-image, and re-encoded as JPEGs of the size used on web pages."""

WEB_SIZE = JpegLimits(maximum_bytes=200_000, maximum_width=500, maximum_height=375)
BATCH_SIZES = (1, 2, 4, 8, 16)
FINALISTS = 3
FINAL_ROUNDS = 2

_WARM_UP_SHARE = 0.3
_START_S = 1.2
"""The time allowed for starting and stopping the children of one measurement, when the total time is divided up."""

_MINIMUM_MEASUREMENT_S = 1.0
_MINIMUM_IMAGES = 3
_MAXIMUM_IN_PROGRESS = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """One combination of the settings that are varied: `decoder.children`, `tensorflow.threads` and `.batch_size`."""

    decoders: int
    threads: int
    batch_size: int

    def toml(self) -> str:
        """The candidate in the form of a settings file."""
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
    """The rate of one candidate in one run."""

    candidate: Candidate
    images_per_s: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """The best candidate with its rate, the median of its measurements, and every measurement in order."""

    best: Candidate
    images_per_s: float
    measurements: tuple[Measurement, ...]


def current(settings: Settings) -> Candidate:
    """The candidate that the settings amount to on this machine."""
    cores = usable_cores()
    return Candidate(
        settings.decoder.children or cores, settings.tensorflow.threads or cores, settings.tensorflow.batch_size
    )


def candidates(cores: int, batch_size: int) -> list[Candidate]:
    """The combinations of decoders and threads that are worth measuring on a machine with this number of cores."""
    decoders = sorted({max(1, cores // 2), max(1, cores - 1), cores, cores + 1})
    threads = sorted({1, max(1, cores // 2), cores})
    return [Candidate(*pair, batch_size) for pair in itertools.product(decoders, threads)]


async def tune(
    settings: Settings,
    contents: Sequence[Content],
    seconds: float,
    on_measured: Callable[[Measurement], None] = lambda _: None,
) -> Tuning:
    """Measure the candidates that are worth it, in about `seconds`. `on_measured` gets every measurement.

    Raises Misconfigured, Unavailable.
    """
    cores = usable_cores()
    grid = candidates(cores, settings.tensorflow.batch_size)
    number = len(grid) + len(BATCH_SIZES) - 1 + FINALISTS * FINAL_ROUNDS
    measurement_s = max(_MINIMUM_MEASUREMENT_S, seconds / number - _START_S)
    measurements: list[Measurement] = []

    async def measure(candidate: Candidate) -> None:
        images_per_s = await rate(candidate.applied_to(settings), contents, measurement_s)
        measurements.append(Measurement(candidate, images_per_s))
        on_measured(measurements[-1])

    for candidate in grid:
        await measure(candidate)
    fastest = _ranked(measurements)[0]
    for batch_size in BATCH_SIZES:
        if batch_size != fastest.batch_size:
            await measure(Candidate(fastest.decoders, fastest.threads, batch_size))
    for candidate in _ranked(measurements)[:FINALISTS] * FINAL_ROUNDS:
        await measure(candidate)
    # Only candidates that were measured again count: among the others the luckiest would win.
    best = next(candidate for candidate in _ranked(measurements) if _times_measured(candidate, measurements) > 1)
    return Tuning(best, _median(best, measurements), tuple(measurements))


async def rate(
    settings: Settings, contents: Sequence[Content], seconds: float, on_progress: ProgressCallback = ignore_progress
) -> float:
    """Images per second under the given settings, without RabbitMQ. Raises Misconfigured, Unavailable."""
    settings = _only_the_local_model(settings)
    starts = FirstStarts()
    engine = await open_engine(settings, Metrics(), starts.observe, on_progress)
    try:
        assert engine.model is not None  # noqa: S101 - the settings enable it
        await asyncio.gather(starts.while_one_can_start(engine.decoders.wait_ready()), engine.model.wait_ready())
        return await _measure_rate(engine, settings, contents, seconds)
    finally:
        await engine.close()


async def web_size_photographs(stack: ExitStack) -> list[Content]:
    """Photographs of web size, encoded by a decoder child; `stack` closes them.

    Raises Misconfigured if scikit-image is not installed.
    """
    spec = importlib.util.find_spec("skimage")  # locates the package without importing it, and with it NumPy
    if spec is None or spec.origin is None:
        raise Misconfigured(
            "there are no photographs: pip install scikit-image, or name a directory", reason="photographs"
        )
    photographs = []
    starts = FirstStarts()
    async with DecoderPool(DecoderOptions(), observe=starts.observe) as decoders:
        await starts.while_one_can_start(decoders.wait_ready())
        for name in PHOTOGRAPHS:
            with open_file(Path(spec.origin).with_name("data") / name) as original:
                jpeg = await decoders.shrink(original, WEB_SIZE, name)
            photographs.append(stack.enter_context(Content.from_bytes(jpeg, name)))
    return photographs


def open_file(file: Path) -> Content:
    """An image file, without any of the checks that paths in events are subject to. The caller closes it."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    return Content(fd, os.fstat(fd).st_size, f"path {file}", os.pread(fd, HEAD_BYTES, 0))


async def _measure_rate(engine: Engine, settings: Settings, contents: Sequence[Content], seconds: float) -> float:
    """Keep enough images in progress for `seconds`; the rate is that of the images finished after the warm-up."""
    started_s = time.monotonic()
    counting_from_s, until_s = started_s + seconds * _WARM_UP_SHARE, started_s + seconds
    finished_s: list[float] = []
    endless_contents = itertools.cycle(contents)

    async def tag_one_after_another() -> None:
        while time.monotonic() < until_s:
            await _tag(engine, settings, next(endless_contents))
            finished_s.append(time.monotonic())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(settings.amqp.prefetch, _MAXIMUM_IN_PROGRESS)):
            group.create_task(tag_one_after_another())
    # Measured from one finished image to another: images finish in batches, which the edges of a window would cut.
    counted_s = [moment_s for moment_s in sorted(finished_s) if counting_from_s <= moment_s <= until_s]
    if len(counted_s) < _MINIMUM_IMAGES:
        raise Unavailable(
            f"only {len(counted_s)} images were finished in {seconds:.1f} s: measure for longer", reason="too_short"
        )
    return (len(counted_s) - 1) / (counted_s[-1] - counted_s[0])


async def _tag(engine: Engine, settings: Settings, content: Content) -> None:
    explanation = await explain(engine.tagger, settings, content, asset_id="the image", all_labels=False)
    if explanation.result.status not in ("tagged", "no_tags"):
        raise Unavailable("the local model did not answer", reason="no_answer")


def _only_the_local_model(settings: Settings) -> Settings:
    """The settings without any provider that costs money, and without settings of single instances."""
    tensorflow = settings.defaults.tensorflow.model_copy(update={"enabled": True})
    instance = InstanceSettings(tensorflow=tensorflow)
    return settings.model_copy(
        update={"enabled": True, "instances": {DEFAULT_INSTANCE: instance}, "defaults": instance}
    )


def _ranked(measurements: Sequence[Measurement]) -> list[Candidate]:
    """Every measured candidate once, the fastest first."""
    measured = dict.fromkeys(measurement.candidate for measurement in measurements)
    return sorted(measured, key=lambda candidate: -_median(candidate, measurements))


def _median(candidate: Candidate, measurements: Sequence[Measurement]) -> float:
    return statistics.median(
        measurement.images_per_s for measurement in measurements if measurement.candidate == candidate
    )


def _times_measured(candidate: Candidate, measurements: Sequence[Measurement]) -> int:
    return sum(measurement.candidate == candidate for measurement in measurements)

"""Measures how many children and threads suit this machine: short runs with the real decoders and model, no broker.

A run keeps as many images in progress as the service would hold deliveries, and counts those that are finished, over
the time that they took (`counting`). First decoders and threads are varied together, then the batch size. Finally the
fastest candidates and the settings as they are take turns for a few rounds: the rate of one short measurement is
uncertain, and the luckiest of many candidates is not the best. By how much the rates of one candidate differ between
the rounds is the machine's noise; one that is not faster by more than that is not recommended.
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

from worker.diagnostics.counting import Counted, counted_of, images_needed
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
ROUNDS = 4
"""Of the finalists: in fewer, the difference between two of them would hardly say how noisy a machine is."""

_WARM_UP_SHARE = 0.3
_START_S = 1.2
"""The time allowed for starting and stopping the children of one measurement, when the total time is divided up."""

_MINIMUM_MEASUREMENT_S = 1.0
_LONGEST_MEASUREMENT_S = 60.0
"""After which one is given up that has not finished enough batches."""

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
    """What one candidate did in one run."""

    candidate: Candidate
    counted: Counted

    @property
    def images_per_s(self) -> float:
        """Its rate."""
        return self.counted.images_per_s


@dataclass(frozen=True, slots=True)
class Tuning:
    """Every measurement in order, and what the rounds have shown; rates are medians of a candidate's rounds."""

    current: Candidate
    """The settings as they are."""
    current_images_per_s: float
    fastest: Candidate
    images_per_s: float
    """Of the fastest."""
    noise: float
    """By how much the rates of one candidate differed between rounds, as a share of its median; the worst of all."""
    measurements: tuple[Measurement, ...]

    @property
    def gain(self) -> float:
        """By how much the fastest is faster than the settings as they are, as a share of these."""
        return self.images_per_s / self.current_images_per_s - 1

    @property
    def recommended(self) -> Candidate | None:
        """The fastest, if it is faster than the settings as they are by more than the noise."""
        return self.fastest if self.fastest != self.current and self.gain > self.noise else None


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
    """Measure the candidates that are worth it, in about `seconds`, or longer on a slow machine.

    `on_measured` gets every measurement. Raises Misconfigured, Unavailable.
    """
    cores = usable_cores()
    as_it_is = current(settings)
    grid = candidates(cores, settings.tensorflow.batch_size)
    number = len(grid) + len(BATCH_SIZES) - 1 + (FINALISTS + 1) * ROUNDS
    measurement_s = max(_MINIMUM_MEASUREMENT_S, seconds / number - _START_S)
    measurements: list[Measurement] = []

    async def measure(candidate: Candidate) -> Measurement:
        found = Measurement(candidate, await count(candidate.applied_to(settings), contents, measurement_s))
        on_measured(found)
        measurements.append(found)
        return found

    for candidate in grid:
        await measure(candidate)
    fastest = _ranked(measurements)[0]
    for batch_size in BATCH_SIZES:
        if batch_size != fastest.batch_size:
            await measure(Candidate(fastest.decoders, fastest.threads, batch_size))
    finalists = list(dict.fromkeys([*_ranked(measurements)[:FINALISTS], as_it_is]))
    # In turns, so that what else the machine does meanwhile is done to all of them. What was measured before the rounds
    # does not count: it has chosen the luckiest.
    rounds = [await measure(candidate) for _ in range(ROUNDS) for candidate in finalists]
    best = _ranked(rounds)[0]
    return Tuning(as_it_is, _median(as_it_is, rounds), best, _median(best, rounds), _noise(rounds), tuple(measurements))


async def count(
    settings: Settings, contents: Sequence[Content], seconds: float, on_progress: ProgressCallback = ignore_progress
) -> Counted:
    """What is finished in `seconds` under the given settings, without RabbitMQ. Raises Misconfigured, Unavailable."""
    settings = _only_the_local_model(settings)
    starts = FirstStarts()
    engine = await open_engine(settings, Metrics(), starts.observe, on_progress)
    try:
        assert engine.model is not None  # noqa: S101 - the settings enable it
        await asyncio.gather(starts.while_one_can_start(engine.decoders.wait_ready()), engine.model.wait_ready())
        return await _count(engine, settings, contents, seconds)
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


async def _count(engine: Engine, settings: Settings, contents: Sequence[Content], seconds: float) -> Counted:
    """Keep enough images in progress for `seconds`, and longer until enough are finished after the warm-up."""
    started_s = time.monotonic()
    counting_from_s, until_s = started_s + seconds * _WARM_UP_SHARE, started_s + seconds
    batch_size = settings.tensorflow.batch_size
    finished_s: list[float] = []
    endless_contents = itertools.cycle(contents)

    def goes_on() -> bool:
        now_s = time.monotonic()
        if now_s < until_s:
            return True
        return now_s - started_s < _LONGEST_MEASUREMENT_S and len(finished_s) < images_needed(batch_size)

    async def tag_one_after_another() -> None:
        while goes_on():
            await _tag(engine, settings, next(endless_contents))
            if (now_s := time.monotonic()) >= counting_from_s:
                finished_s.append(now_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(settings.amqp.prefetch, _MAXIMUM_IN_PROGRESS)):
            group.create_task(tag_one_after_another())
    counted = counted_of(finished_s, batch_size)
    if counted is None:
        raise Unavailable(
            f"only {len(finished_s)} images were finished in {time.monotonic() - started_s:.0f} s, and "
            f"{images_needed(batch_size)} are needed for a rate in batches of {batch_size}",
            reason="too_short",
        )
    return counted


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


def _noise(rounds: Sequence[Measurement]) -> float:
    """The widest span of one candidate's rates, as a share of their median."""
    spans = []
    for candidate in _ranked(rounds):
        rates = [each.images_per_s for each in rounds if each.candidate == candidate]
        spans.append((max(rates) - min(rates)) / statistics.median(rates))
    return max(spans)

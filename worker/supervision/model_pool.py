"""The model child at work: pixels in, labels and confidences out.

Few images are given one by one, as many as the child has use for, so that each is answered as soon as it is done; many
are given together. Nothing waits for company unless `batch_wait_s` says so. The model only ever sees arrays of one
shape, so a death is the child's own crash: everything in hand is done again by its successor. An image that keeps being
in hand at crashes is done again alone, and at last set aside.
"""

from __future__ import annotations

import array
import asyncio
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.errors import CannotBeDone, Unavailable
from worker.operations import tracing
from worker.supervision import packets
from worker.supervision.child_handle import ChildSpec
from worker.supervision.lifecycle import Cause, Policy
from worker.supervision.packets import Packet, ProtocolError
from worker.supervision.pool import ChildState, Observer, Pool, Recycling
from worker.supervision.relaunch import RelaunchRule

MOST_LABELS_AN_IMAGE = 1000

CRASHES_BEFORE_ALONE = 2
"""An image that was in hand at so many crashes is given to the model by itself."""

CRASHES_ALLOWED = 3
"""At one more the image is set aside. By then it has used up four crashes, fewer than the default rule allows."""

Scores = list[tuple[int, float]]
"""Label index and confidence, best first."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model runs, how it is fed, and when it is given up. `package`: the directory of the model package."""

    package: Path
    threads: int | None = None
    children: int = 1
    spare: bool = False
    batch_size: int = 16
    batch_wait_s: float = 0.0
    rule: RelaunchRule = field(default_factory=RelaunchRule)
    start_timeout_s: float = 120.0
    batch_timeout_s: float = 30.0
    stop_timeout_s: float = 5.0
    images_per_child: int = 0
    maximum_memory_bytes: int = 0


class ModelPool:
    """The model child, or several. Use with `async with`, or `start` and `close`."""

    def __init__(
        self,
        options: ModelOptions,
        *,
        observe: Observer = lambda _name, _notice: None,
        on_batch: Callable[[int, float], None] = lambda _images, _seconds: None,
        others_at_work: Callable[[], bool] = lambda: False,
        spec: ChildSpec | None = None,
    ) -> None:
        """`on_batch` is told of every batch that was answered: how many images, and how long it took.

        `others_at_work` says whether anybody else needs the cores just now.
        """
        self._options = options
        self._on_batch = on_batch
        self._others_at_work = others_at_work
        self._waiting: deque[_Image] = deque()
        self._most_at_once = 2 * (options.threads or len(os.sched_getaffinity(0)))
        """One image for each thread of a child, and one more to go on with."""
        settings = {"package": str(options.package), "threads": options.threads, "batch_size": options.batch_size}
        self._pool = Pool(
            "model",
            spec or ChildSpec.module("worker.children.model", settings),
            Policy(
                options.rule,
                work_is_blamed=False,
                start_timeout_s=options.start_timeout_s,
                stop_timeout_s=options.stop_timeout_s,
            ),
            self,
            children=options.children,
            most_jobs=self._most_at_once,
            side_by_side=True,
            spares=1 if options.spare else 0,
            recycling=Recycling(options.images_per_child, options.maximum_memory_bytes),
            observe=observe,
        )

    async def score(self, pixels_fd: int, floor: float, asset: str = "image") -> Scores:
        """What the model says of the pixels in `pixels_fd`: labels of at least `floor`, best first, at most 1000.

        Waits while the child is starting or being relaunched. Raises `Unavailable` when the model is disabled, and
        `CannotBeDone` for pixels that the model refuses or that keep crashing it.
        """
        image = _Image(os.dup(pixels_fd), floor, asset, asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting.append(image)
        self._settle_in()
        return await image.scores

    async def start(self) -> None:
        """Launch the model child; images wait until it is ready."""
        self._pool.start()

    async def close(self, *, at_once: bool = False) -> None:
        """Stop the children and wait for their end. Images still waiting end with `Unavailable`."""
        await self._pool.close(at_once=at_once)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(at_once=kind is not None)

    async def wait_ready(self) -> None:
        """Return when the model is ready. Raises `Unavailable` when it is, or becomes, disabled."""
        await self._pool.wait_ready()

    def reset(self) -> None:
        """Forget the crashes; if disabled, launch the model again."""
        self._pool.reset()

    @property
    def ready(self) -> bool:
        """Whether a started model child lives."""
        return self._pool.ready

    @property
    def disabled_reason(self) -> str | None:
        """Why the model is disabled, in words; None while it is not."""
        return self._pool.disabled.message if self._pool.disabled else None

    @property
    def relaunches_left(self) -> int | None:
        """How many crashes now would still be relaunched."""
        return self._pool.relaunches_left(time.monotonic())

    @property
    def waiting(self) -> int:
        """How many images wait for the model."""
        return len(self._waiting)

    def states(self) -> list[ChildState]:
        """Every model child."""
        return self._pool.states()

    # ── the pool's side ──────────────────────────────────────────────────────────────────────────────────────────────

    def next_job(self, *, fresh: bool, free: int, in_hand: int) -> _Batch | None:
        """A full batch when so many wait; fewer one by one, as many as the child has use for.

        One by one, each is answered as soon as it is done; together, they cost fewer packets.
        """
        self._drop_unwanted()
        if not self._waiting:
            return None
        if self._waiting[0].suspect:
            return None if in_hand else self._take(1, alone=False)
        size = self._options.batch_size
        if len(self._waiting) < size * max(1, free):
            wait_s = self._waiting[0].came_at_s + self._options.batch_wait_s - time.monotonic()
            if wait_s > 0:
                asyncio.get_running_loop().call_later(wait_s, self._pool.dispatch)
                return None
            if self._options.batch_wait_s:
                return self._take(math.ceil(len(self._waiting) / max(1, free)), alone=False)
        elif size > 1:
            return self._take(size, alone=False) if in_hand <= max(size, self._most_at_once - size) else None
        if in_hand >= self._most_at_once:
            return None
        return self._take(1, alone=not in_hand and len(self._waiting) == 1 and not self._others_at_work())

    def _take(self, most: int, *, alone: bool) -> _Batch:
        """The first that wait; what is suspect goes by itself."""
        images = [self._waiting.popleft()]
        while self._waiting and len(images) < most and not self._waiting[0].suspect:
            images.append(self._waiting.popleft())
        return _Batch(images, alone, self._options.batch_timeout_s, self.put_back, self._on_batch)

    def abandon(self, error: Unavailable) -> None:
        """The model is disabled: say so to everyone who waits."""
        while self._waiting:
            self._waiting.popleft().fail(error)

    def put_back(self, images: Sequence[_Image]) -> None:
        """Do these again, before all others."""
        self._waiting.extendleft(reversed(images))
        self._drop_unwanted()
        self._settle_in()

    def _drop_unwanted(self) -> None:
        """Let go of images whose askers have gone away."""
        for image in [each for each in self._waiting if not each.wanted]:
            self._waiting.remove(image)
            image.drop()

    def _settle_in(self) -> None:
        if self._pool.serving:
            self._pool.dispatch()
        else:
            self.abandon(self._pool.unavailable())


@dataclass(slots=True, eq=False)
class _Image:
    """Pixels that wait for, or are in the hands of, a model child; with a descriptor of their own."""

    fd: int
    floor: float
    asset: str
    scores: asyncio.Future[Scores]
    came_at_s: float
    crashes: int = 0
    span: tracing.Span = field(default_factory=tracing.current_span)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the answer."""
        return not self.scores.done()

    @property
    def suspect(self) -> bool:
        """Whether it has been in hand at so many crashes that it must go alone."""
        return self.crashes >= CRASHES_BEFORE_ALONE

    def succeed(self, scores: Scores) -> None:
        """End with what the model said."""
        if self.wanted:
            self.scores.set_result(scores)
        self.drop()

    def fail(self, error: Exception) -> None:
        """End with `error`."""
        if self.wanted:
            self.scores.set_exception(error)
        self.drop()

    def drop(self) -> None:
        """Close the descriptor."""
        packets.close_all([self.fd])


class _Batch:
    """Images that go to the model together."""

    def __init__(
        self,
        images: list[_Image],
        alone: bool,
        timeout_s: float,
        put_back: Callable[[Sequence[_Image]], None],
        on_batch: Callable[[int, float], None],
    ) -> None:
        self.timeout_s = timeout_s
        self.packet = packets.pack("score", {"floors": [image.floor for image in images], "alone": alone})
        self.fds = [image.fd for image in images]
        self.images = len(images)
        self.solitary = images[0].suspect
        self._images = images
        self._put_back = put_back
        self._on_batch = on_batch
        self._given_at_s = 0.0

    def given(self, child: str, pid: int) -> None:
        """A child has it."""
        self._given_at_s = time.monotonic()
        for image in self._images:
            image.span.set({"child.name": child, "child.pid": pid, "model.batch_images": self.images})

    def answered(self, packet: Packet) -> None:
        """Take the scores; an item may be refused by itself."""
        match packet:
            case {"kind": "done", "items": [*items]} if len(items) == len(self._images):
                outcomes = [_outcome_in(item, image) for item, image in zip(items, self._images, strict=True)]
            case _:
                raise ProtocolError("an answer of the wrong shape to score")
        self._on_batch(self.images, time.monotonic() - self._given_at_s)
        for image, outcome in zip(self._images, outcomes, strict=True):
            if isinstance(outcome, CannotBeDone):
                image.fail(outcome)
            else:
                image.succeed(outcome)

    def lost(self, cause: Cause) -> None:
        """The child crashed: nothing is blamed on the images, until one has been there too often."""
        again = []
        for image in self._images:
            image.crashes += 1
            if image.crashes > CRASHES_ALLOWED:
                message = (
                    f"{image.asset} was in hand at {image.crashes} crashes of the model; the last: {cause.message}"
                )
                image.fail(CannotBeDone(message, reason="image_in_hand_at_model_crashes"))
            else:
                again.append(image)
        self._put_back(again)

    def returned(self) -> None:
        """The batch never reached the child."""
        self._put_back(self._images)


def _outcome_in(item: object, image: _Image) -> Scores | CannotBeDone:
    """One image's part of an answer. Raises `ProtocolError`."""
    match item:
        case {"labels": bytes(labels), "confidences": bytes(confidences)}:
            return _scores_in(labels, confidences)
        case {"reason": str(reason), "message": str(message)}:
            return CannotBeDone(f"{image.asset}: {message}", reason=reason)
    raise ProtocolError("an item of the wrong shape")


def _scores_in(labels: bytes, confidences: bytes) -> Scores:
    """Little-endian uint16 label indices, and as many float32 confidences from 0 to 1, falling."""
    if len(labels) % 2 or len(labels) * 2 != len(confidences) or len(labels) > 2 * MOST_LABELS_AN_IMAGE:
        raise ProtocolError("scores of the wrong length")
    indices, values = array.array("H", labels), array.array("f", confidences)
    if sys.byteorder == "big":
        indices.byteswap()
        values.byteswap()
    previous = 1.0 + 1e-6
    for value in values:
        if not 0.0 <= value <= previous:  # which no NaN is
            raise ProtocolError("confidences that are not numbers from 0 to 1, falling")
        previous = value
    return list(zip(indices, values, strict=True))

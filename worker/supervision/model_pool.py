"""The pool of model children: pixels in, labels and confidences out.

A few images are sent one by one, as many as the child has threads for, so that each is answered as soon as it is done;
many are sent in batches. An image waits for others only if `batch_wait_s` is set. The model only ever sees arrays of
one shape, so a death is the child's own crash: its successor scores all images in hand again. An image that is in hand
at several crashes is scored alone, and fails after one more.
"""

from __future__ import annotations

import array
import asyncio
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import CannotBeDone, Unavailable
from worker.operations import tracing
from worker.settings import TensorFlowSettings
from worker.supervision import packets
from worker.supervision.child_handle import ChildSpec
from worker.supervision.lifecycle import Cause, Policy
from worker.supervision.packets import Packet, ProtocolError
from worker.supervision.pool import Observer, Pool, Recycling
from worker.supervision.relaunch import RelaunchRule
from worker.supervision.turns import OWN_TURN, FairQueue, Precedence, TakingTurns, Turn

CRASHES_BEFORE_ALONE = 2
"""An image that was in hand at this many crashes is sent to the model by itself."""

CRASHES_ALLOWED = 3
"""At one more crash the image fails. By then it has used up four crashes, fewer than the default rule allows."""

_BATCH_AMONG_OTHERS = 4
"""The largest batch where several instances are known: the next one's image waits for it to end."""

LabelScores = list[tuple[int, float]]
"""Label index and confidence, best first."""

_DEFAULTS = TensorFlowSettings()
_DEFAULT_RULE = RelaunchRule(
    _DEFAULTS.maximum_number_of_relaunches, _DEFAULTS.maximum_number_of_relaunches_time_interval
)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model runs, how images are batched, and when the model is disabled; the defaults are those of the settings.

    `package`: the directory of the model package. `threads` of one child; None: one per core.
    """

    package: Path
    threads: int | None = _DEFAULTS.threads
    children: int = 1
    spare: bool = _DEFAULTS.spare
    batch_size: int = _DEFAULTS.batch_size
    batch_wait_s: float = _DEFAULTS.batch_wait_s
    rule: RelaunchRule = _DEFAULT_RULE
    start_timeout_s: float = _DEFAULTS.start_timeout_s
    batch_timeout_s: float = _DEFAULTS.batch_timeout_s
    stop_timeout_s: float = _DEFAULTS.stop_timeout_s
    images_per_child: int = _DEFAULTS.images_per_child
    maximum_memory_bytes: int = _DEFAULTS.maximum_memory_bytes


class ModelPool(Pool):
    """The model child, or several of them."""

    def __init__(
        self,
        options: ModelOptions,
        *,
        observe: Observer = lambda _name, _notice: None,
        on_batch: Callable[[int, float], None] = lambda _images, _seconds: None,
        others_at_work: Callable[[], bool] = lambda: False,
        precedence: Precedence | None = None,
        spec: ChildSpec | None = None,
    ) -> None:
        """`on_batch` is called after every batch, with the number of images and the seconds that it took.

        `others_at_work` returns whether other children, such as decoders, need the cores at this moment. `precedence`
        is shared with the pool of those.
        """
        self._options = options
        self._on_batch = on_batch
        self._others_at_work = others_at_work
        self._precedence = precedence or Precedence()
        self._waiting: FairQueue[_Image] = FairQueue(self._precedence, self._dispatch)
        self._maximum_in_hand = 2 * (options.threads or len(os.sched_getaffinity(0)))
        """Images in the hands of one child: one for each thread, and one more for each to continue with."""
        settings = {
            "package": str(options.package.absolute()),
            "threads": options.threads,
            "batch_size": options.batch_size,
        }
        super().__init__(
            "model",
            spec or ChildSpec.module("worker.children.model", settings),
            Policy(
                options.rule,
                work_is_blamed=False,
                start_timeout_s=options.start_timeout_s,
                stop_timeout_s=options.stop_timeout_s,
            ),
            children=options.children,
            maximum_jobs=self._maximum_in_hand,
            concurrent_jobs=True,
            spares=1 if options.spare else 0,
            recycling=Recycling(options.images_per_child, options.maximum_memory_bytes),
            observe=observe,
        )

    async def score(self, pixels_fd: int, floor: float, asset: str = "image", turn: Turn = OWN_TURN) -> LabelScores:
        """The labels of the pixels in `pixels_fd` with a confidence of at least `floor`, best first.

        There are at most `packets.MAXIMUM_LABELS`. The file holds size x size x 3 bytes, as the model package demands;
        it is duplicated, so the caller may close it. Waits for its turn, and while the child is starting or being
        relaunched. Raises `Unavailable` when the model is disabled, and `CannotBeDone` for pixels that the model
        refuses or that were in hand at too many crashes.
        """
        scores: asyncio.Future[LabelScores] = asyncio.get_running_loop().create_future()
        image = _Image(os.dup(pixels_fd), floor, asset, turn, scores, time.monotonic())
        with self._precedence.present(image):
            self._waiting.append(image)
            self._dispatch_or_fail()
            try:
                return await scores
            except asyncio.CancelledError:
                if self._waiting.remove(image):
                    image.close()
                raise

    @property
    def waiting(self) -> int:
        """How many images wait for the model."""
        return len(self._waiting)

    def _next_job(self, *, fresh: bool, free: int, in_hand: int) -> _Batch | None:
        """A full batch when enough images of a lane wait; otherwise single images, up to `_maximum_in_hand`.

        A single image is answered as soon as it is done; a batch costs fewer packets per image.
        """
        lane, number = self._waiting.next_lane()
        if lane is None:
            return None
        first = lane.head()
        if first.suspect:
            return None if in_hand else self._take_batch(lane, 1, alone=False)
        size = self._options.batch_size
        if self._waiting.others_may_come:
            size = min(size, _BATCH_AMONG_OTHERS)
        if number < size * max(1, free):
            wait_s = first.queued_at_s + self._options.batch_wait_s - time.monotonic()
            if wait_s > 0:
                asyncio.get_running_loop().call_later(wait_s, self._dispatch)
                return None
            if self._options.batch_wait_s:
                return self._take_batch(lane, math.ceil(number / max(1, free)), alone=False)
        elif size > 1:
            fits = in_hand <= max(size, self._maximum_in_hand - size)
            return self._take_batch(lane, size, alone=False) if fits else None
        if in_hand >= self._maximum_in_hand:
            return None
        alone = not (in_hand or first.turn.bulk or len(self._waiting) > 1 or self._others_at_work())
        return self._take_batch(lane, 1, alone=alone)

    def _take_batch(self, lane: TakingTurns[_Image], size: int, *, alone: bool) -> _Batch:
        """Up to `size` images from the head of a lane; a suspect image gets a batch of its own.

        `alone`: no other work needs the cores, so that the child may use all of them for the image.
        """
        images = [self._waiting.take(lane)]
        while lane and len(images) < size and not lane.head().suspect:
            images.append(self._waiting.take(lane))
        return _Batch(images, alone, self._options.batch_timeout_s, self._put_back, self._on_batch)

    def _fail_waiting(self, error: Unavailable) -> None:
        for image in self._waiting.drain():
            image.fail(error)

    def _put_back(self, images: Sequence[_Image]) -> None:
        """Queue images again, before all others, but for those whose callers have been cancelled."""
        for image in images:
            if not image.wanted:
                image.close()
        self._waiting.put_back(image for image in images if image.wanted)
        self._dispatch_or_fail()


@dataclass(slots=True, eq=False)
class _Image:
    """Pixels that wait for a model child, or are in hand of one. `fd` is owned; `queued_at_s` is monotonic."""

    fd: int
    floor: float
    asset: str
    turn: Turn
    scores: asyncio.Future[LabelScores]
    queued_at_s: float
    crashes: int = 0
    span: tracing.Span = field(default_factory=tracing.current_span)

    @property
    def wanted(self) -> bool:
        """Whether the caller still waits for the scores."""
        return not self.scores.done()

    @property
    def suspect(self) -> bool:
        """Whether it was in hand at `CRASHES_BEFORE_ALONE` crashes, so that it must be scored alone."""
        return self.crashes >= CRASHES_BEFORE_ALONE

    def succeed(self, scores: LabelScores) -> None:
        """End with the model's scores."""
        if self.wanted:
            self.scores.set_result(scores)
        self.close()

    def fail(self, error: Exception) -> None:
        """End with `error`."""
        if self.wanted:
            self.scores.set_exception(error)
        self.close()

    def close(self) -> None:
        """Close the descriptor."""
        packets.close_all([self.fd])


class _Batch:
    """Images that are sent to the model together."""

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
        self._sent_at_s = 0.0

    def on_sent(self, child: str, pid: int) -> None:
        """Start the clock, and record the child in the traces."""
        self._sent_at_s = time.monotonic()
        for image in self._images:
            image.span.set({"child.name": child, "child.pid": pid, "model.batch_images": self.images})

    def on_answer(self, packet: Packet) -> None:
        """End every image with its scores, or with the reason why it is refused. Raises `ProtocolError`."""
        match packet:
            case {"kind": "done", "items": [*items]} if len(items) == len(self._images):
                outcomes = [_outcome_in(item, image) for item, image in zip(items, self._images, strict=True)]
            case _:
                raise ProtocolError("an answer of the wrong shape to score")
        self._on_batch(self.images, time.monotonic() - self._sent_at_s)
        for image, outcome in zip(self._images, outcomes, strict=True):
            if isinstance(outcome, CannotBeDone):
                image.fail(outcome)
            else:
                image.succeed(outcome)

    def on_child_died(self, cause: Cause) -> None:
        """The child crashed: no image is blamed, until it has been in hand at too many crashes."""
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

    def on_returned(self) -> None:
        """The child never began the batch."""
        self._put_back(self._images)


def _outcome_in(item: object, image: _Image) -> LabelScores | CannotBeDone:
    """One image's part of an answer. Raises `ProtocolError`."""
    match item:
        case {"labels": bytes(labels), "confidences": bytes(confidences)}:
            return _scores_in(labels, confidences)
        case {"reason": str(reason), "message": str(message)}:
            return CannotBeDone(f"{image.asset}: {message}", reason=reason)
    raise ProtocolError("an item of the wrong shape")


def _scores_in(labels: bytes, confidences: bytes) -> LabelScores:
    """Parse little-endian uint16 label indices and as many float32 confidences from 0 to 1, in descending order."""
    if len(labels) % 2 or len(labels) * 2 != len(confidences) or len(labels) > 2 * packets.MAXIMUM_LABELS:
        raise ProtocolError("scores of the wrong length")
    indices, values = array.array("H", labels), array.array("f", confidences)
    if sys.byteorder == "big":
        indices.byteswap()
        values.byteswap()
    previous = 1.0 + 1e-6
    for value in values:
        if not 0.0 <= value <= previous:  # a NaN compares false
            raise ProtocolError("confidences that are not numbers from 0 to 1, falling")
        previous = value
    return list(zip(indices, values, strict=True))

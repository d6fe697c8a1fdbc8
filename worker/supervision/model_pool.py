"""The pool of model children: pixels in, labels and confidences out.

A few images are sent one by one, as many as the child has threads for, so that each is answered as soon as it is done;
many are sent in batches. An image waits for others only if `batch_wait_s` is set. The model only ever sees arrays of
one shape, so a death is the child's own crash: its successor scores all images in hand again.

An image is blamed only on evidence. One that was in hand at several crashes is a suspect: it is scored alone, by a
child that has already scored something else in its life, another image or else the probe, pixels of our own. If that
child dies of it, the image is to blame. A model that dies at everything never scores the probe: it uses up its
relaunches, and the images wait.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from worker.errors import CannotBeDone, Unavailable
from worker.operations import tracing
from worker.settings import TensorFlowSettings
from worker.supervision import packets
from worker.supervision.cgroup import usable_cores
from worker.supervision.child_handle import KILLED_FROM_OUTSIDE, ChildSpec
from worker.supervision.child_words import words_in
from worker.supervision.lifecycle import Cause, Policy
from worker.supervision.packets import Packet, ProtocolError
from worker.supervision.pool import Observer, Pool, Recycling
from worker.supervision.processor_time import ProcessorTime
from worker.supervision.relaunch import RelaunchRule
from worker.supervision.turns import OWN_TURN, FairQueue, Precedence, TakingTurns, Turn
from worker.supervisor import Job

CRASHES_BEFORE_ALONE = 2
"""An image that was in hand at this many crashes is a suspect: it is sent to the model by itself."""

CRASHES_ALLOWED = 3
"""At one more crash the image fails. By then it has used up four crashes, fewer than the default rule allows.

The last two were of children that had scored something else before, and had nothing but this image in hand.
"""

_PROBE_SIZE_UNKNOWN = 8
_MAXIMUM_PROBE_SIZE = 4096
_MOST_SQUARES = 16
_PROBE_AGAIN_S = 1.0
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_log = structlog.get_logger(__name__)

_BATCH_AMONG_OTHERS = 4
"""The largest batch where several instances are known: the next one's image waits for it to end."""

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""NumPy would start threads when it is imported: before the sandbox, which they would stay outside of."""

LabelScores = list[tuple[int, float]]
"""Label index and confidence, best first."""

_DEFAULTS = TensorFlowSettings()
_DEFAULT_RULE = RelaunchRule(
    _DEFAULTS.maximum_number_of_relaunches, _DEFAULTS.maximum_number_of_relaunches_time_interval
)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which models run, how images are batched, and when they are disabled; the defaults are those of the settings.

    `packages`: the directories of the model packages. `threads` of one child; None: one for each usable core.
    `sandbox`: `best`, `strict` or `off`.
    """

    packages: tuple[Path, ...]
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
    sandbox: str = _DEFAULTS.sandbox


class ModelPool(Pool):
    """The model child, or several of them."""

    def __init__(
        self,
        options: ModelOptions,
        *,
        observe: Observer = lambda _name, _notice: None,
        on_batch: Callable[[int, float], None] = lambda _images, _seconds: None,
        precedence: Precedence | None = None,
        spec: ChildSpec | None = None,
        name: str = "model",
        nice: int = 0,
    ) -> None:
        """`on_batch` is called after every batch, with the number of images and the seconds that it took.

        `precedence` is shared with the decoders, which an image goes through before. `nice` is added to the children's
        own (nice(2)).
        """
        self._options = options
        self._on_batch = on_batch
        self.others_at_work: Callable[[], bool] = lambda: False
        """Whether other children, such as decoders, need the cores at this moment."""
        self.processor_time = ProcessorTime()
        self._precedence = precedence or Precedence()
        self._waiting: FairQueue[_Image] = FairQueue(self._precedence, self._dispatch)
        self._suspects: deque[_Image] = deque()
        threads = options.threads or usable_cores()
        self._maximum_in_hand = 2 * threads
        """Images in the hands of one child: one for each thread, and one more for each to continue with."""
        settings = {
            "packages": [str(package.absolute()) for package in options.packages],
            "threads": threads,
            "batch_size": options.batch_size,
            "sandbox": options.sandbox,
            "nice": nice,
        }
        super().__init__(
            name,
            spec or ChildSpec.module("worker.children.model", settings, _ENVIRONMENT),
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

        There are at most `packets.MAXIMUM_LABELS`. The file holds the squares that the model packages demand; it
        is duplicated, so the caller may close it. Waits for its turn, and while the child is starting or being
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
                if self._waiting.remove(image) or image in self._suspects:
                    image.close()
                if image in self._suspects:
                    self._suspects.remove(image)
                raise

    @property
    def waiting(self) -> int:
        """How many images wait for the model."""
        return len(self._waiting) + len(self._suspects)

    def _next_job(self, *, fresh: bool, free: int, in_hand: int) -> Job | None:
        """A full batch when enough images of a lane wait; otherwise single images, up to `_maximum_in_hand`.

        A single image is answered as soon as it is done; a batch costs fewer packets per image. Suspects go before
        all others, each alone; a fresh child first gets something else, to show that it works.
        """
        if self._suspects:
            return None if in_hand else self._job_for_suspects(fresh=fresh)
        lane, number = self._waiting.next_lane()
        if lane is None:
            return None
        first = lane.head()
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
        alone = not (in_hand or first.turn.bulk or len(self._waiting) > 1 or self.others_at_work())
        return self._take_batch(lane, 1, alone=alone)

    def _take_batch(self, lane: TakingTurns[_Image], size: int, *, alone: bool) -> _Batch:
        """Up to `size` images from the head of a lane.

        `alone`: no other work needs the cores, so that the child may use all of them for the image.
        """
        images = [self._waiting.take(lane) for _ in range(min(size, len(lane)))]
        return self._batch(images, alone=alone)

    def _batch(self, images: list[_Image], *, alone: bool, suspect: bool = False) -> _Batch:
        timeout_s = self._options.batch_timeout_s
        return _Batch(images, alone, timeout_s, self._put_back, self._on_batch, self.processor_time, suspect=suspect)

    def _job_for_suspects(self, *, fresh: bool) -> Job | None:
        """The first suspect, for a child that has answered a job; for a fresh one, what shows that it works."""
        if not fresh:
            return self._batch([self._suspects.popleft()], alone=False, suspect=True)
        lane, _ = self._waiting.next_lane()
        if lane is not None:
            return self._take_batch(lane, 1, alone=False)
        try:
            return _Probe(self._input_bytes, self._options.batch_timeout_s, self._dispatch_or_fail)
        except OSError as error:
            _log.warning("the model could not be probed yet", error=str(error))
            asyncio.get_running_loop().call_later(_PROBE_AGAIN_S, self._dispatch)
            return None

    @property
    def _input_bytes(self) -> int:
        """Of the squares that the models look at, as a child has reported their sides in pixels."""
        reported = [child.hello.get("sizes") for child in self.states()]
        return next(
            (length for sizes in reported if (length := _squares_bytes(sizes))), _squares_bytes([_PROBE_SIZE_UNKNOWN])
        )

    def _fail_waiting(self, error: Unavailable) -> None:
        for image in (*self._suspects, *self._waiting.drain()):
            image.fail(error)
        self._suspects.clear()

    def _put_back(self, images: Sequence[_Image]) -> None:
        """Queue images again, before all others, but for those whose callers have been cancelled.

        Suspects go behind those that are suspects already.
        """
        wanted = [image for image in images if image.wanted]
        for image in images:
            if not image.wanted:
                image.close()
        for image in wanted:
            if image.suspect:
                self._precedence.bulk_returns(image)
                self._suspects.append(image)
        self._waiting.put_back(image for image in wanted if not image.suspect)
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
        processor_time: ProcessorTime,
        *,
        suspect: bool = False,
    ) -> None:
        """`suspect`: it holds one image, which goes to a child that has been seen to work and has no other job."""
        self.timeout_s = timeout_s
        self.packet = packets.pack("score", {"floors": [image.floor for image in images], "alone": alone})
        self.fds = [image.fd for image in images]
        self.images = len(images)
        self.solitary = suspect
        self._images = images
        self._put_back = put_back
        self._on_batch = on_batch
        self._processor_time = processor_time
        self._pid = 0
        self._sent_at_s = 0.0

    def on_sent(self, child: str, pid: int) -> None:
        """Start the clocks, and record the child in the traces."""
        self._sent_at_s = time.monotonic()
        self._pid = pid
        self._processor_time.begin(pid)
        for image in self._images:
            image.span.set({"child.name": child, "child.pid": pid, "model.batch_images": self.images})

    def on_answer(self, packet: Packet) -> None:
        """End every image with its scores, or with the reason why it is refused. Raises `ProtocolError`."""
        match packet:
            case {"kind": "done", "items": [*items]} if len(items) == len(self._images):
                outcomes = [_outcome_in(item, image.asset) for item, image in zip(items, self._images, strict=True)]
            case _:
                raise ProtocolError("an answer of the wrong shape to score")
        self._on_batch(self.images, time.monotonic() - self._sent_at_s)
        self._processor_time.end(self._pid, self.images)
        for image, outcome in zip(self._images, outcomes, strict=True):
            if isinstance(outcome, CannotBeDone):
                image.fail(outcome)
            else:
                image.succeed(outcome)

    def on_child_died(self, cause: Cause) -> None:
        """The child crashed: an image is blamed only if it was alone in hand, and not at its first crashes.

        A child that was killed from outside shows nothing about the images: pixels of one shape take the same memory.
        """
        again = []
        for image in self._images:
            image.crashes += cause.reason != KILLED_FROM_OUTSIDE
            if self.solitary and image.crashes > CRASHES_ALLOWED:
                message = (
                    f"{image.asset} was in hand at {image.crashes} crashes of the model, which scores other images; "
                    f"the last: {cause.message}"
                )
                image.fail(CannotBeDone(message, reason="image_in_hand_at_model_crashes"))
            else:
                again.append(image)
        self._put_back(again)

    def on_returned(self) -> None:
        """The child never began the batch."""
        self._put_back(self._images)


class _Probe:
    """Pixels of our own, sent to a child before a suspect: a child that has answered them is known to work.

    It stands for no event, and so for no image that the model has answered.
    """

    images = 0
    solitary = True

    def __init__(self, length: int, timeout_s: float, on_ended: Callable[[], None]) -> None:
        self.timeout_s = timeout_s
        self.packet = packets.pack("score", {"floors": [1.0], "alone": False})
        self.fds = [_probe_pixels(length)]
        self._on_ended = on_ended

    def on_sent(self, child: str, pid: int) -> None:
        """Log it: it is rare, and explains what follows."""
        _log.info("probing the model before it gets an image that it may have crashed of", child=child, pid=pid)

    def on_answer(self, packet: Packet) -> None:
        """The child works, whatever its answer is. Raises `ProtocolError` for none."""
        match packet:
            case {"kind": "done", "items": [item]}:
                _outcome_in(item, "the probe")
            case _:
                raise ProtocolError("an answer of the wrong shape to the probe")
        packets.close_all(self.fds)

    def on_child_died(self, cause: Cause) -> None:
        """The child does not work: no image is to blame, and its successor is probed again."""
        _log.warning("the model has crashed of the probe: its images are not to blame", cause=cause.message)
        self.on_returned()

    def on_returned(self) -> None:
        """The next child will be probed."""
        packets.close_all(self.fds)
        self._on_ended()


def _squares_bytes(sizes: object) -> int:
    """Of squares with these sides in pixels; 0 if they are not such. What a child reports is not trusted."""
    if not isinstance(sizes, list) or len(sizes) > _MOST_SQUARES:
        return 0
    sides = [side for side in sizes if isinstance(side, int) and 0 < side <= _MAXIMUM_PROBE_SIZE]
    return sum(side * side * 3 for side in sides) if len(sides) == len(sizes) else 0


def _probe_pixels(length: int) -> int:
    """A descriptor of so many bytes, in which every value of a pixel occurs. Raises `OSError`."""
    fd = os.memfd_create("autotag-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, (bytes(range(256)) * (length // 256 + 1))[:length])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def _outcome_in(item: object, asset: str) -> LabelScores | CannotBeDone:
    """One image's part of an answer. Raises `ProtocolError`."""
    match item:
        case {"labels": bytes(labels), "confidences": bytes(confidences)}:
            return _scores_in(labels, confidences)
        case dict() if (words := words_in(item)) is not None:
            return CannotBeDone(f"{asset}: {words[1]}", reason=words[0])
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

"""The decoder children at work: untrusted images in, pixels, smaller JPEGs and facts out.

A decoder is at one image at a time, so when it dies or hangs that image is to blame. The image is tried once more, in a
decoder that has done nothing else before, and then given up by name; its neighbours notice nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from worker.errors import CannotBeDone, Unavailable
from worker.messages import ImageFacts
from worker.operations import tracing
from worker.supervision import packets
from worker.supervision.child_handle import ChildSpec
from worker.supervision.lifecycle import Cause, Policy
from worker.supervision.packets import Packet, ProtocolError
from worker.supervision.pool import ChildState, Observer, Pool, Recycling
from worker.supervision.relaunch import RelaunchRule

if TYPE_CHECKING:
    from worker.images.content import Content
    from worker.images.requests import JpegLimits, PixelRecipe

_log = structlog.get_logger(__name__)

_REASON = re.compile(r"image_[a-z_]{1,60}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEATHS_BEFORE_GIVING_UP = 2
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """How many decoders there are and what one image may cost. `sandbox`: `best`, `strict` or `off`."""

    children: int = 1
    timeout_s: float = 20.0
    maximum_pixels: int = 50_000_000
    maximum_bytes: int = 256 << 20
    maximum_memory_bytes: int = 1 << 30
    maximum_cpu_s: int = 20
    images_per_child: int = 10_000
    sandbox: str = "best"
    start_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image. `pixels_fd`, where pixels were asked for, holds size x size x 3 bytes; the caller closes it."""

    facts: ImageFacts
    pixels_fd: int | None


class ImageKilledDecoder(CannotBeDone):
    """The image killed its decoder twice: the evidence, for the dead letter and for finding the file again."""

    def __init__(self, message: str, *, cause: Cause, stage: str, sha256: str) -> None:
        super().__init__(message, reason="image_killed_decoder")
        self.cause = cause
        self.stage = stage
        self.sha256 = sha256


class DecoderPool:
    """Decoder children, each at one image at a time; images wait in order. Use with `async with`."""

    def __init__(
        self,
        options: DecoderOptions = DecoderOptions(),
        *,
        observe: Observer = lambda _name, _notice: None,
        spec: ChildSpec | None = None,
    ) -> None:
        self._options = options
        self._waiting: deque[_DecoderJob] = deque()
        self._suspects: deque[_DecoderJob] = deque()
        settings = {
            name: getattr(options, name)
            for name in ("maximum_pixels", "maximum_bytes", "maximum_memory_bytes", "maximum_cpu_s", "sandbox")
        }
        self._pool = Pool(
            "decoder",
            spec or ChildSpec.module("worker.children.decoder", settings),
            Policy(
                # Told as not ready while it backs off, but never disabled: the next image may be a harmless one.
                RelaunchRule(maximum_number_of_relaunches=None),
                work_is_blamed=True,
                start_timeout_s=options.start_timeout_s,
            ),
            self,
            children=options.children,
            recycling=Recycling(after_images=options.images_per_child),
            observe=observe,
        )

    async def decode(self, content: Content, recipe: PixelRecipe | None, asset: str) -> Decoded:
        """Facts of an image, and with a recipe the model's input.

        Raises `CannotBeDone` (reason `image_…`) when the image is to blame, `Unavailable` when no decoder can start.
        """
        if recipe is None:
            return Decoded(await self._do("inspect", packets.pack("inspect"), content, None, asset), None)
        length = recipe.size * recipe.size * 3
        pixels_fd = os.memfd_create("autotag-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(pixels_fd, length)
            # What the model child reads has the right length whatever a decoder does to it. A decoder that writes to it
            # after its answer spoils its own image and no other; a seal against that stops the event loop for the time
            # in which the kernel makes sure that nobody is writing (0.4 ms, an image).
            fcntl.fcntl(pixels_fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
            facts = await self._do("decode", _decode_packet(recipe), content, pixels_fd, asset)
        except BaseException:
            os.close(pixels_fd)
            raise
        return Decoded(facts, pixels_fd)

    async def inspect(self, content: Content, asset: str) -> ImageFacts:
        """Format, size and digest of an image, from its header alone. Raises as `decode`."""
        return (await self.decode(content, None, asset)).facts

    async def shrink(self, content: Content, limits: JpegLimits, asset: str) -> bytes:
        """The image as a JPEG within `limits`, upright, without its metadata. Raises as `decode`."""
        jpeg_fd = os.memfd_create("autotag-jpeg", os.MFD_CLOEXEC)
        try:
            await self._do("shrink", packets.pack("shrink", {"limits": asdict(limits)}), content, jpeg_fd, asset)
            return os.pread(jpeg_fd, limits.maximum_bytes, 0)
        finally:
            os.close(jpeg_fd)

    async def start(self) -> None:
        """Launch the children; images wait until one is ready."""
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
        """Return when a decoder is ready. Raises `Unavailable` when none can start."""
        await self._pool.wait_ready()

    def reset(self) -> None:
        """Start decoders that were given up."""
        self._pool.reset()

    @property
    def ready(self) -> bool:
        """Whether a started decoder lives."""
        return self._pool.ready

    @property
    def disabled_reason(self) -> str | None:
        """Why no decoder can start, in words."""
        return self._pool.disabled.message if self._pool.disabled else None

    @property
    def relaunches_left(self) -> None:
        """Any number: a decoder's death is its image's fault."""

    @property
    def at_work(self) -> bool:
        """Whether any decoder has an image in hand."""
        return self._pool.at_work

    @property
    def waiting(self) -> int:
        """How many images wait for a decoder."""
        return len(self._waiting) + len(self._suspects)

    def states(self) -> list[ChildState]:
        """Every decoder."""
        return self._pool.states()

    # ── the pool's side ──────────────────────────────────────────────────────────────────────────────────────────────

    def next_job(self, *, fresh: bool, free: int, in_hand: int) -> _DecoderJob | None:
        """The next image; a suspect only in a fresh decoder, and there before all others."""
        for queue in (self._suspects, self._waiting) if fresh else (self._waiting,):
            while queue:
                job = queue.popleft()
                if job.wanted:
                    return job
                job.drop()
        return None

    def abandon(self, error: Unavailable) -> None:
        """No decoder can start: say so to everyone who waits."""
        for queue in (self._suspects, self._waiting):
            while queue:
                queue.popleft().fail(error)

    def put_back(self, job: _DecoderJob) -> None:
        """A job that must be done again: a suspect apart from the others, an untried one before them."""
        if job.deaths:
            self._suspects.append(job)
        else:
            self._waiting.appendleft(job)
        self._settle_in()

    async def _do(self, kind: str, packet: bytes, content: Content, out_fd: int | None, asset: str) -> ImageFacts:
        who = f"{asset} ({content.origin})"
        if content.size_bytes > self._options.maximum_bytes:
            message = f"{who} has {content.size_bytes} bytes; at most {self._options.maximum_bytes} are decoded"
            raise CannotBeDone(message, reason="image_too_large_bytes")
        fds = [content.fd] if out_fd is None else [content.fd, out_fd]
        job = _DecoderJob(self, kind, packet, fds, self._options.timeout_s, who)
        self._waiting.append(job)
        self._settle_in()
        try:
            return await job.answer
        except _KilledTwiceError as error:
            cause = error.cause
            sha256 = await asyncio.to_thread(_digest, content.fd)
            message = f"{who} killed its decoder twice ({kind}): {cause.message}; SHA-256 {sha256}"
            raise ImageKilledDecoder(message, cause=cause, stage=kind, sha256=sha256) from None

    def _settle_in(self) -> None:
        """Give what waits to whoever is free, or nobody a chance to wait in vain."""
        if self._pool.serving:
            self._pool.dispatch()
        else:
            self.abandon(self._pool.unavailable())


class _KilledTwiceError(Exception):
    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


class _DecoderJob:
    """One image for one decoder. Has descriptors of its own, so that a caller may go away at any time."""

    images = 1

    def __init__(
        self, pool: DecoderPool, kind: str, packet: bytes, fds: Sequence[int], timeout_s: float, who: str
    ) -> None:
        self.answer: asyncio.Future[ImageFacts] = asyncio.get_running_loop().create_future()
        self.timeout_s = timeout_s
        self.packet = packet
        self.fds = [os.dup(fd) for fd in fds]
        self.deaths = 0
        self._pool = pool
        self._kind = kind
        self._who = who
        self._span = tracing.current_span()

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the answer."""
        return not self.answer.done()

    @property
    def solitary(self) -> bool:
        """An image that has killed a decoder goes alone."""
        return self.deaths > 0

    def given(self, child: str, pid: int) -> None:
        """A decoder has it."""
        self._span.set({"child.name": child, "child.pid": pid})

    def answered(self, packet: Packet) -> None:
        """Take the decoder's answer: what it found, or why the image is refused."""
        match packet:
            case {"kind": "done"}:
                facts = _facts_in(packet)
                if self.wanted:
                    self.answer.set_result(facts)
                self.drop()
            case {"kind": "refused", "reason": str(reason), "message": str(message)} if _REASON.fullmatch(reason):
                self.fail(CannotBeDone(f"{self._who}: {message}", reason=reason))
            case _:
                raise ProtocolError(f"an answer of the wrong shape to {self._kind}")

    def lost(self, cause: Cause) -> None:
        """The decoder died with the image in hand: once more alone, and then no more."""
        self.deaths += 1
        if not self.wanted:
            self.drop()
        elif self.deaths >= _DEATHS_BEFORE_GIVING_UP:
            self.fail(_KilledTwiceError(cause))
        else:
            _log.warning("image killed its decoder; once more in a fresh one", image=self._who, cause=cause.message)
            self._pool.put_back(self)

    def returned(self) -> None:
        """The image never reached the decoder."""
        if self.wanted:
            self._pool.put_back(self)
        else:
            self.drop()

    def fail(self, error: Exception) -> None:
        """End with `error`."""
        if self.wanted:
            self.answer.set_exception(error)
        self.drop()

    def drop(self) -> None:
        """Close the descriptors."""
        packets.close_all(self.fds)
        self.fds = []


@lru_cache(maxsize=8)
def _decode_packet(recipe: PixelRecipe) -> bytes:
    """There are as many recipes as models."""
    return packets.pack("decode", {"recipe": asdict(recipe)})


def _facts_in(packet: Packet) -> ImageFacts:
    """The facts in an answer. Raises `ProtocolError`: a decoder's word is checked like any stranger's."""
    match packet:
        case {"format": str(name), "width": int(width), "height": int(height), "sha256": str(sha256)} if (
            name.isascii() and name.isalnum() and width > 0 and height > 0 and _SHA256.fullmatch(sha256)
        ):
            return ImageFacts(format=name, width=width, height=height, sha256=sha256)
    raise ProtocolError("facts of the wrong shape")


def _digest(fd: int) -> str:
    digest, position = hashlib.sha256(), 0
    while piece := os.pread(fd, _READ_BYTES, position):
        digest.update(piece)
        position += len(piece)
    return digest.hexdigest()

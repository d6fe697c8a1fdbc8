"""The pool of decoder children: untrusted images in; pixels, smaller JPEGs and facts out.

A decoder works on one image at a time, so when it dies or hangs, that image is to blame. The image is tried once more,
in a fresh decoder, and then fails by name; other images are not affected. A decoder that was killed from outside, by
the kernel because a container had run out of memory for instance, shows nothing about its image, which is done again;
one that is always killed while others are done is to blame all the same (`kills_from_outside`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog

from worker.errors import AutotagError, CannotBeDone, TryLater, Unavailable
from worker.images.kinds import PICTURE_FORMATS
from worker.messages import ImageFacts
from worker.operations import tracing
from worker.operations.printable import printable
from worker.settings import DecoderSettings, SourcesSettings
from worker.supervision import packets
from worker.supervision.child_handle import KILLED_FROM_OUTSIDE, ChildSpec
from worker.supervision.kills_from_outside import KillsFromOutside
from worker.supervision.lifecycle import Cause, Policy
from worker.supervision.packets import Packet, ProtocolError
from worker.supervision.pool import Observer, Pool, Recycling
from worker.supervision.relaunch import RelaunchRule
from worker.supervision.turns import OWN_TURN, FairQueue, Precedence, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.images.content import Content
    from worker.images.requests import JpegLimits, PixelRecipe

_log = structlog.get_logger(__name__)

_REASON = re.compile(r"image_[a-z_]{1,60}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_JPEG = b"\xff\xd8\xff"
_LONGEST_MESSAGE = 500
_MAXIMUM_DEATHS = 2
_MAXIMUM_KILLS_FROM_OUTSIDE = 3
"""After as many an image waits: it may be what takes the memory that the container does not have. After the wait, one
more is enough."""

_RULE = RelaunchRule(maximum_number_of_relaunches=None, interval_s=60.0)
"""While decoders cannot start they are not ready and the delay grows, but they are never disabled: the next image may
be a harmless one."""

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_DEFAULTS = DecoderSettings()


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """How many decoders there are and what one image may cost; the defaults are those of the settings.

    `maximum_bytes` of the file; `maximum_memory_bytes` of address space and `maximum_cpu_s` of processor time for one
    child and image. `sandbox`: `best`, `strict` or `off`.
    """

    children: int = 1
    timeout_s: float = _DEFAULTS.timeout_s
    maximum_pixels: int = _DEFAULTS.maximum_pixels
    maximum_bytes: int = SourcesSettings().maximum_bytes
    maximum_memory_bytes: int = _DEFAULTS.maximum_memory_bytes
    maximum_cpu_s: int = _DEFAULTS.maximum_cpu_s
    images_per_child: int = _DEFAULTS.images_per_child
    sandbox: str = _DEFAULTS.sandbox
    start_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image. `pixels_fd`, if there was a recipe, holds size x size x 3 bytes; the caller closes it."""

    facts: ImageFacts
    pixels_fd: int | None


class ImageKilledDecoder(CannotBeDone):
    """The image killed its decoder twice, or its decoders alone are always killed from outside.

    The attributes are evidence for the dead letter and for finding the file. `stage` is what the decoder was doing:
    `inspect`, `decode` or `shrink`. `sha256` is the digest of the file.
    """

    def __init__(self, message: str, *, cause: Cause, stage: str, sha256: str) -> None:
        super().__init__(message, reason="image_killed_decoder")
        self.cause = cause
        self.stage = stage
        self.sha256 = sha256


class DecoderPool(Pool):
    """Decoder children, each with one image at a time; images wait for their turn. `precedence`: see `ModelPool`.

    `relaunches_left` is always None: a decoder's death is blamed on its image, and there may be any number of them.
    """

    def __init__(
        self,
        options: DecoderOptions = DecoderOptions(),
        *,
        observe: Observer = lambda _name, _notice: None,
        precedence: Precedence | None = None,
        spec: ChildSpec | None = None,
    ) -> None:
        self._options = options
        self._precedence = precedence or Precedence()
        self._waiting: FairQueue[_DecoderJob] = FairQueue(self._precedence, self._dispatch)
        self._suspects: deque[_DecoderJob] = deque()
        self._killed = KillsFromOutside()
        settings = {
            name: getattr(options, name)
            for name in ("maximum_pixels", "maximum_bytes", "maximum_memory_bytes", "maximum_cpu_s", "sandbox")
        }
        super().__init__(
            "decoder",
            spec or ChildSpec.module("worker.children.decoder", settings),
            Policy(_RULE, work_is_blamed=True, start_timeout_s=options.start_timeout_s),
            children=options.children,
            recycling=Recycling(after_images=options.images_per_child),
            observe=observe,
        )

    async def decode(self, content: Content, recipe: PixelRecipe | None, asset: str, turn: Turn = OWN_TURN) -> Decoded:
        """Facts of an image and, if there is a recipe, the model's input.

        Raises `CannotBeDone` (reason `image_…`) when the image is to blame, `Unavailable` when no decoder can start,
        and `TryLater`, which is no attempt, when its decoders were killed from outside.
        """
        if recipe is None:
            return Decoded(await self._run_job("inspect", packets.pack("inspect"), content, None, asset, turn), None)
        length = recipe.size * recipe.size * 3
        pixels_fd = os.memfd_create("autotag-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(pixels_fd, length)
            # The seals guarantee the length to the model child whatever a decoder does to the file. A decoder that
            # writes to it after its answer corrupts its own image and no other. A seal against writing would block the
            # event loop for 0.4 ms per image, while the kernel makes sure that there is no writer.
            fcntl.fcntl(pixels_fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
            facts = await self._run_job("decode", _decode_packet(recipe), content, pixels_fd, asset, turn)
        except BaseException:
            os.close(pixels_fd)
            raise
        return Decoded(facts, pixels_fd)

    async def inspect(self, content: Content, asset: str, turn: Turn = OWN_TURN) -> ImageFacts:
        """Format, size and digest of an image, from its header alone. Raises the same errors as `decode`."""
        return (await self.decode(content, None, asset, turn)).facts

    async def shrink(self, content: Content, limits: JpegLimits, asset: str, turn: Turn = OWN_TURN) -> bytes:
        """The image as a JPEG within `limits`, upright, without its metadata. Raises the same errors as `decode`."""
        jpeg_fd = os.memfd_create("autotag-jpeg", os.MFD_CLOEXEC)
        try:
            packet = packets.pack("shrink", {"limits": asdict(limits)})
            await self._run_job("shrink", packet, content, jpeg_fd, asset, turn)
            jpeg = os.pread(jpeg_fd, limits.maximum_bytes, 0)
            if not jpeg.startswith(_JPEG):
                raise CannotBeDone(f"{asset}: what its decoder made is no JPEG", reason="image_corrupt")
            return jpeg
        finally:
            os.close(jpeg_fd)

    @property
    def waiting(self) -> int:
        """How many images wait for a decoder."""
        return len(self._waiting) + len(self._suspects)

    def _next_job(self, *, fresh: bool, free: int, in_hand: int) -> _DecoderJob | None:
        """The next image. An image that has killed a decoder goes only to a fresh one, and there before all others."""
        if fresh and self._suspects:
            return self._suspects.popleft()
        lane, _ = self._waiting.next_lane()
        return None if lane is None else self._waiting.take(lane)

    def _fail_waiting(self, error: Unavailable) -> None:
        while self._suspects:
            self._suspects.popleft().fail(error)
        for job in self._waiting.drain():
            job.fail(error)

    def _put_back(self, job: _DecoderJob) -> None:
        """Queue a job again: among the suspects if it has killed a decoder, otherwise before all others."""
        if job.deaths:
            self._suspects.append(job)
        else:
            self._waiting.put_back([job])
        self._dispatch_or_fail()

    async def _run_job(
        self, kind: str, packet: bytes, content: Content, out_fd: int | None, asset: str, turn: Turn
    ) -> ImageFacts:
        """Queue a job and wait for its answer. `out_fd`: the file that the decoder writes to."""
        image = f"{asset} ({content.origin})"
        if content.size_bytes > self._options.maximum_bytes:
            message = f"{image} has {content.size_bytes} bytes; at most {self._options.maximum_bytes} are decoded"
            raise CannotBeDone(message, reason="image_too_large_bytes")
        fds = [content.fd] if out_fd is None else [content.fd, out_fd]
        job = _DecoderJob(self._put_back, kind, packet, fds, self._options, image, turn)
        job.kills_allowed = 1 if self._killed.knows(image) else _MAXIMUM_KILLS_FROM_OUTSIDE
        try:
            with self._precedence.present(job):
                self._waiting.append(job)
                self._dispatch_or_fail()
                facts = await job.answer
                if kind != "inspect":  # that takes hardly any memory
                    self._killed.on_done(image, job.kills)
                return facts
        except asyncio.CancelledError:
            if job in self._suspects:
                self._suspects.remove(job)
                job.close()
            elif self._waiting.remove(job):
                job.close()
            raise
        except _KilledTwiceError as error:
            cause = error.cause
            sha256 = await asyncio.to_thread(content.sha256)
            message = f"{image} killed its decoder twice ({kind}): {cause.message}; SHA-256 {sha256}"
            raise ImageKilledDecoder(message, cause=cause, stage=kind, sha256=sha256) from None
        except _KilledFromOutsideError as error:
            raise await self._after_kills(error.cause, kind, content, image) from None

    async def _after_kills(self, cause: Cause, kind: str, content: Content, image: str) -> AutotagError:
        """The image waits, or is to blame if only its own decoders are killed from outside, and always."""
        this = self._killed.on_round(image)
        if not this.to_blame:
            message = f"{image}: its decoder was killed from outside (round {this.number}); the last: {cause.message}"
            return TryLater(message, reason="decoder_killed_from_outside", after_s=this.wait_s, counted=False)
        sha256 = await asyncio.to_thread(content.sha256)
        message = (
            f"{image} had its decoder killed from outside in {this.number} rounds ({kind}), while other images were "
            f"done, {this.others} of them since the last: {cause.message}; SHA-256 {sha256}"
        )
        return ImageKilledDecoder(message, cause=cause, stage=kind, sha256=sha256)


class _DecoderKilledError(Exception):
    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


class _KilledTwiceError(_DecoderKilledError):
    """By its image."""


class _KilledFromOutsideError(_DecoderKilledError):
    """As often as the image may have it done again at once."""


class _DecoderJob:
    """One image for one decoder. It owns duplicates of the descriptors, so the caller may be cancelled at any time."""

    images = 1

    def __init__(
        self,
        put_back: Callable[[_DecoderJob], None],
        kind: str,
        packet: bytes,
        fds: Sequence[int],
        options: DecoderOptions,
        image: str,
        turn: Turn,
    ) -> None:
        self.answer: asyncio.Future[ImageFacts] = asyncio.get_running_loop().create_future()
        self.timeout_s = options.timeout_s
        self.packet = packet
        self.fds = packets.duplicate_all(fds)
        self.deaths = 0
        self.turn = turn
        self.queued_at_s = time.monotonic()
        self.kills = 0
        """From outside."""
        self.kills_allowed = _MAXIMUM_KILLS_FROM_OUTSIDE
        self._maximum_pixels = options.maximum_pixels
        self._put_back = put_back
        self._kind = kind
        self._image = image
        self._span = tracing.current_span()

    @property
    def wanted(self) -> bool:
        """Whether the caller still waits for the answer."""
        return not self.answer.done()

    @property
    def solitary(self) -> bool:
        """An image that has killed a decoder must be the only one in hand."""
        return self.deaths > 0

    def on_sent(self, child: str, pid: int) -> None:
        """Record the decoder in the trace."""
        self._span.set({"child.name": child, "child.pid": pid})

    def on_answer(self, packet: Packet) -> None:
        """End with the facts, or with the reason why the image is refused. Raises `ProtocolError`."""
        match packet:
            case {"kind": "done"}:
                facts = _facts_in(packet, self._maximum_pixels)
                if self.wanted:
                    self.answer.set_result(facts)
                self.close()
            case {"kind": "refused", "reason": str(reason), "message": str(message)} if _REASON.fullmatch(reason):
                # Its words end in logs and results, and may be the image's.
                self.fail(CannotBeDone(f"{self._image}: {printable(message, maximum=_LONGEST_MESSAGE)}", reason=reason))
            case _:
                raise ProtocolError(f"an answer of the wrong shape to {self._kind}")

    def on_child_died(self, cause: Cause) -> None:
        """The image killed the decoder: try it once more alone, and fail it the second time."""
        if cause.reason == KILLED_FROM_OUTSIDE:
            self._on_child_killed_from_outside(cause)
            return
        self.deaths += 1
        if not self.wanted:
            self.close()
        elif self.deaths >= _MAXIMUM_DEATHS:
            self.fail(_KilledTwiceError(cause))
        else:
            _log.warning("image killed its decoder; once more in a fresh one", image=self._image, cause=cause.message)
            self._put_back(self)

    def _on_child_killed_from_outside(self, cause: Cause) -> None:
        """Do the image again, but not for ever: at some point it waits."""
        self.kills += 1
        if self.kills < self.kills_allowed:
            self.on_returned()
        else:
            self.fail(_KilledFromOutsideError(cause))

    def on_returned(self) -> None:
        """The decoder never began the image."""
        if self.wanted:
            self._put_back(self)
        else:
            self.close()

    def fail(self, error: Exception) -> None:
        """End with `error`."""
        if self.wanted:
            self.answer.set_exception(error)
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        packets.close_all(self.fds)
        self.fds = []


@lru_cache(maxsize=8)
def _decode_packet(recipe: PixelRecipe) -> bytes:
    """The serialized job, cached: there is one recipe per model."""
    return packets.pack("decode", {"recipe": asdict(recipe)})


def _facts_in(packet: Packet, maximum_pixels: int) -> ImageFacts:
    """The facts in an answer. An image may have taken its decoder over: raises `ProtocolError` for what no image is."""
    match packet:
        case {"format": str(name), "width": int(width), "height": int(height), "sha256": str(sha256)} if (
            name in PICTURE_FORMATS
            and width > 0
            and height > 0
            and width * height <= maximum_pixels
            and _SHA256.fullmatch(sha256)
        ):
            return ImageFacts(format=name, width=width, height=height, sha256=sha256)
    raise ProtocolError("facts of the wrong shape")

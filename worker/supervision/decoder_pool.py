"""The pool of decoder children: untrusted images in; pixels, smaller JPEGs and facts out.

A decoder works on one image at a time, so when it dies, that image is to blame. The image is tried once more, in a
fresh decoder, and then fails by name; other images are not affected. A decoder that was killed from outside, by the
kernel because a container had run out of memory for instance, shows nothing about its image, which is done again; one
that is always killed while others are done is to blame all the same (`kills_from_outside`).

Every image begins with a small grant of memory and time (`Grant`). One that takes more memory waits until the budget
that the decoders share has room for it. One that takes more time goes on in the slow lane: a decoder of its own, one
image at a time, that gives way to the others. There it has all the time that an image may take, once.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import structlog

from worker.errors import AutotagError, CannotBeDone, TryLater, Unavailable
from worker.images.kinds import PICTURE_FORMATS
from worker.images.perceptual_hash import DETAIL_BYTES, HASH_BYTES, PerceptualHash
from worker.images.requests import JpegLimits
from worker.messages import ImageFacts
from worker.operations import tracing
from worker.settings import DecoderSettings, SourcesSettings
from worker.supervision import packets
from worker.supervision.child_handle import KILLED_FROM_OUTSIDE, ChildSpec
from worker.supervision.child_words import words_in
from worker.supervision.kills_from_outside import KillsFromOutside
from worker.supervision.lifecycle import Cause, Policy
from worker.supervision.memory_budget import FIRST_BYTES, MemoryBudget, TooLittleMemory
from worker.supervision.on_demand import OnDemand
from worker.supervision.packets import Packet, ProtocolError
from worker.supervision.pool import ChildState, Observer, Pool, Recycling
from worker.supervision.relaunch import RelaunchRule
from worker.supervision.turns import OWN_TURN, FairQueue, Precedence, Turn

if TYPE_CHECKING:
    from worker.images.content import Content
    from worker.images.requests import PixelRecipe

_log = structlog.get_logger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_JPEG = b"\xff\xd8\xff"
_MAXIMUM_DEATHS = 2
_MAXIMUM_KILLS_FROM_OUTSIDE = 3
"""After as many an image waits: it may be what takes the memory that the container does not have. After the wait, one
more is enough."""

_RULE = RelaunchRule(maximum_number_of_relaunches=None, interval_s=60.0)
"""While decoders cannot start they are not ready and the delay grows, but they are never disabled: the next image may
be a harmless one."""

_NICE = 5
"""Of the slow lane: a third of the processor time that a decoder of the others gets where both want all of it."""

_SLOW_SHARE = 4
"""So many times its processor time an image of the slow lane may be on the way, as the others go before it."""

_HUNG_SHARE = 5
"""The same for an image that has its first time; but no longer than `timeout_s`."""

_SLOW_INSTANCE_S = 60.0

_DECODER_BYTES = 35 << 20
"""Of the slow lane's decoder itself."""

_UNLIMITED_BYTES = 1 << 62
_NAME_KEY = os.urandom(16)
"""Decoders know instances by digests: a process of one inherits from the server what that knows of others."""

_Wanted: TypeAlias = "tuple[PixelRecipe, ...] | JpegLimits | None"
"""What is to be made of an image; None: nothing, its facts are."""

_PROCESSOR_TIME, _TOO_LONG = "killed_by_sigprof", frozenset({"killed_by_sigxcpu", "silent_while_busy"})

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_DEFAULTS = DecoderSettings()


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """How many decoders there are and what one image may cost; the defaults are those of the settings.

    `maximum_bytes` of the file; `maximum_memory_bytes` of address space and `maximum_cpu_s` of processor time for one
    child and image. `first_cpu_s`: of processor time before it goes on in the slow lane. `sandbox`: `best`, `strict` or
    `off`. `isolation`: what has a process of its own in a decoder, the images of each `instance`, or each `image`.
    `shared_memory_bytes`: what images may take together beyond `FIRST_BYTES` each; None: any amount.
    """

    children: int = 1
    timeout_s: float = _DEFAULTS.timeout_s
    first_cpu_s: float = _DEFAULTS.first_cpu_s
    shared_memory_bytes: Callable[[], int] | None = None
    maximum_pixels: int = _DEFAULTS.maximum_pixels
    maximum_bytes: int = SourcesSettings().maximum_bytes
    maximum_memory_bytes: int = _DEFAULTS.maximum_memory_bytes
    maximum_cpu_s: int = _DEFAULTS.maximum_cpu_s
    images_per_child: int = _DEFAULTS.images_per_child
    sandbox: str = _DEFAULTS.sandbox
    isolation: str = _DEFAULTS.isolation
    start_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image. `pixels_fd`, if there were recipes, holds their squares, in order; the caller closes it.

    `hash`: only where it was asked for; None for a picture in which there is too little for one.
    """

    facts: ImageFacts
    pixels_fd: int | None
    hash: PerceptualHash | None = None


class ImageKilledDecoder(CannotBeDone):
    """The image killed its decoder twice, or its decoders alone are always killed from outside, or it took too long.

    The attributes are evidence for the dead letter and for finding the file. `stage` is what the decoder was doing:
    `inspect`, `decode` or `shrink`. `sha256` is the digest of the file.
    """

    def __init__(
        self, message: str, *, cause: Cause, stage: str, sha256: str, reason: str = "image_killed_decoder"
    ) -> None:
        super().__init__(message, reason=reason)
        self.cause = cause
        self.stage = stage
        self.sha256 = sha256


@dataclass(frozen=True, slots=True)
class Grant:
    """What one image may use: bytes of memory beyond the decoder's own, and whether it has all the time there is.

    `deaths`: how many decoders it has killed.
    """

    memory_bytes: int
    slow: bool = False
    deaths: int = 0


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
        name: str = "decoder",
        nice: int = 0,
    ) -> None:
        self._options = options
        self._first = Grant(min(FIRST_BYTES, options.maximum_memory_bytes))
        self._memory = MemoryBudget(options.shared_memory_bytes or (lambda: _UNLIMITED_BYTES))
        self._slow = OnDemand(
            lambda: DecoderPool(
                replace(options, children=1), observe=observe, spec=spec, name="decoder-slow", nice=_NICE
            )
        )
        self._precedence = precedence or Precedence()
        self._waiting: FairQueue[_DecoderJob] = FairQueue(self._precedence, self._dispatch)
        self._suspects: deque[_DecoderJob] = deque()
        self._slow_until_s: dict[str, float] = {}
        """By instance of which an image was slow lately: for so long, others of it may be slow too."""
        self._killed = KillsFromOutside()
        settings = {
            name: getattr(options, name)
            for name in (
                "maximum_pixels",
                "maximum_bytes",
                "maximum_memory_bytes",
                "maximum_cpu_s",
                "sandbox",
                "isolation",
            )
        }
        settings["first_memory_bytes"] = self._first.memory_bytes
        settings["nice"] = nice
        super().__init__(
            name,
            spec or ChildSpec.module("worker.children.decoder", settings),
            Policy(_RULE, work_is_blamed=True, start_timeout_s=options.start_timeout_s),
            children=options.children,
            recycling=Recycling(after_images=options.images_per_child),
            observe=observe,
        )

    async def decode(
        self,
        content: Content,
        recipes: tuple[PixelRecipe, ...],
        asset: str,
        turn: Turn = OWN_TURN,
        *,
        hashed: bool = False,
    ) -> Decoded:
        """Facts of an image and, if there are recipes, the models' inputs; `hashed`: its perceptual hash too.

        Raises `CannotBeDone` (reason `image_…`) when the image is to blame, `Unavailable` when no decoder can start,
        and `TryLater`, which is no attempt, when its decoders were killed from outside.
        """
        if not recipes:
            return await self._done("decode" if hashed else "inspect", None, content, None, asset, turn, hashed)
        pixels_fd = os.memfd_create("autotag-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(pixels_fd, sum(recipe.bytes for recipe in recipes))
            # The seals guarantee the length to the model child whatever a decoder does to the file. A decoder that
            # writes to it after its answer corrupts its own image and no other. A seal against writing would block the
            # event loop for 0.4 ms per image, while the kernel makes sure that there is no writer.
            fcntl.fcntl(pixels_fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
            done = await self._done("decode", recipes, content, pixels_fd, asset, turn, hashed)
        except BaseException:
            os.close(pixels_fd)
            raise
        return replace(done, pixels_fd=pixels_fd)

    async def inspect(self, content: Content, asset: str, turn: Turn = OWN_TURN) -> ImageFacts:
        """Format, size and digest of an image, from its header alone. Raises the same errors as `decode`."""
        return (await self.decode(content, (), asset, turn)).facts

    async def shrink(self, content: Content, limits: JpegLimits, asset: str, turn: Turn = OWN_TURN) -> bytes:
        """The image as a JPEG within `limits`, upright, without its metadata. Raises the same errors as `decode`."""
        jpeg_fd = os.memfd_create("autotag-jpeg", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            await self._done("shrink", limits, content, jpeg_fd, asset, turn)
            jpeg = os.pread(jpeg_fd, limits.maximum_bytes, 0)
            fcntl.fcntl(jpeg_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)  # it may be kept, and holds nothing then
            os.ftruncate(jpeg_fd, 0)
            if not jpeg.startswith(_JPEG):
                raise CannotBeDone(f"{asset}: what its decoder made is no JPEG", reason="image_corrupt")
            return jpeg
        finally:
            os.close(jpeg_fd)

    @property
    def waiting(self) -> int:
        """How many images wait for a decoder, or for memory."""
        slow = self._slow.pool
        return len(self._waiting) + len(self._suspects) + len(self._memory) + (slow.waiting if slow else 0)

    def states(self) -> list[ChildState]:
        """See `Pool`; the slow lane's too."""
        return [*super().states(), *(self._slow.pool.states() if self._slow.pool else ())]

    async def close(self, *, at_once: bool = False) -> None:
        """See `Pool`."""
        await self._slow.close(at_once=at_once)
        await super().close(at_once=at_once)

    def _next_job(self, *, fresh: bool, free: int, in_hand: int) -> _DecoderJob | None:
        """The next image. An image that has killed a decoder goes only to a fresh one, and there before all others.

        One that may take long goes to a decoder that has none in hand, and none is given to that one besides.
        """
        if fresh and self._suspects:
            return self._suspects.popleft()
        lane, _ = self._waiting.next_lane()
        if lane is None or (in_hand and lane.head().solitary):
            return None
        return self._waiting.take(lane)

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

    async def _done(
        self,
        kind: str,
        wanted: _Wanted,
        content: Content,
        out_fd: int | None,
        asset: str,
        turn: Turn,
        hashed: bool = False,
    ) -> Decoded:
        """Have a job done, with a larger grant as soon as the first turns out to be too small."""
        image = f"{asset} ({content.origin})"
        if content.size_bytes > self._options.maximum_bytes:
            message = f"{image} has {content.size_bytes} bytes; at most {self._options.maximum_bytes} are decoded"
            raise CannotBeDone(message, reason="image_too_large_bytes")
        fds = [content.fd] if out_fd is None else [content.fd, out_fd]
        grant = self._first
        try:
            while True:
                try:
                    async with self._granted(grant, turn) as pool:
                        return await pool._run_job(kind, wanted, grant, fds, image, turn, hashed)
                except _MoreWantedError as more:
                    if more.grant.slow:
                        self._note_slow(turn.instance)
                    log = _log.info if more.grant.slow and not grant.slow else _log.debug
                    log(
                        "image takes more than its grant",
                        image=image,
                        mebibytes=more.grant.memory_bytes >> 20,
                        slow=more.grant.slow,
                    )
                    grant = more.grant
        except TooLittleMemory as error:
            message = (
                f"{image}: decoding it takes about {grant.memory_bytes >> 20} MiB, and all images together have "
                f"{(error.total_bytes + self._first.memory_bytes) >> 20} MiB here"
            )
            raise CannotBeDone(message, reason="image_too_large_memory") from None
        except _DecoderKilledError as error:
            raise await self._blame(error, kind, content, image) from None

    @asynccontextmanager
    async def _granted(self, grant: Grant, turn: Turn) -> AsyncIterator[DecoderPool]:
        """The pool that does it, when there is memory."""
        extra_bytes = grant.memory_bytes - self._first.memory_bytes
        if not grant.slow:
            async with self._memory.lent(extra_bytes, turn):
                yield self
            return
        # Where there is hardly any memory, the slow lane's decoder itself is not counted.
        room = self._memory.total_bytes()
        needed_bytes = extra_bytes + self._first.memory_bytes + _DECODER_BYTES
        async with self._memory.lent(max(extra_bytes, min(needed_bytes, room)), turn), self._slow.used() as pool:
            yield pool

    async def _run_job(
        self, kind: str, wanted: _Wanted, grant: Grant, fds: Sequence[int], image: str, turn: Turn, hashed: bool
    ) -> Decoded:
        """Queue a job and wait for its answer. The second of `fds`, if there is one, is what the decoder writes to.

        Raises `_MoreWantedError` and `_DecoderKilledError` besides what `decode` raises.
        """
        job = _DecoderJob(self._put_back, kind, wanted, grant, fds, self._options, image, turn, hashed)
        job.kills_allowed = 1 if self._killed.knows(image) else _MAXIMUM_KILLS_FROM_OUTSIDE
        if self._slow_until_s:
            job.may_take_long |= time.monotonic() < self._slow_until_s.get(turn.instance, 0.0)
        try:
            with self._precedence.present(job):
                self._queue(job)
                self._dispatch_or_fail()
                done = await job.answer
                if kind != "inspect":  # that takes hardly any memory
                    self._killed.on_done(image, job.kills)
                return done
        except asyncio.CancelledError:
            if job in self._suspects:
                self._suspects.remove(job)
                job.close()
            elif self._waiting.remove(job):
                job.close()
            raise

    def _note_slow(self, instance: str) -> None:
        now_s = time.monotonic()
        self._slow_until_s = {each: until_s for each, until_s in self._slow_until_s.items() if until_s > now_s}
        self._slow_until_s[instance] = now_s + _SLOW_INSTANCE_S

    def _queue(self, job: _DecoderJob) -> None:
        if job.deaths:
            self._suspects.append(job)
        else:
            self._waiting.append(job)

    async def _blame(self, error: _DecoderKilledError, kind: str, content: Content, image: str) -> AutotagError:
        """The error of an image that has killed its decoders, or whose decoders were killed from outside."""
        cause = error.cause
        if isinstance(error, _KilledFromOutsideError):
            return await self._after_kills(cause, kind, content, image)
        sha256 = await asyncio.to_thread(content.sha256)
        if isinstance(error, _TookTooLongError):
            message = (
                f"{image}: it takes too long to decode ({kind}; at most {self._options.maximum_cpu_s} s of processor "
                f"time): {cause.message}; SHA-256 {sha256}"
            )
            return ImageKilledDecoder(message, cause=cause, stage=kind, sha256=sha256, reason="image_too_slow")
        message = f"{image} killed its decoder twice ({kind}): {cause.message}; SHA-256 {sha256}"
        return ImageKilledDecoder(message, cause=cause, stage=kind, sha256=sha256)

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


class _TookTooLongError(_DecoderKilledError):
    """With all the time that an image may take."""


class _KilledFromOutsideError(_DecoderKilledError):
    """As often as the image may have it done again at once."""


class _MoreWantedError(Exception):
    """The image takes more than it was granted; `grant` is what it takes."""

    def __init__(self, grant: Grant) -> None:
        super().__init__()
        self.grant = grant


class _DecoderJob:
    """One image for one decoder. It owns duplicates of the descriptors, so the caller may be cancelled at any time."""

    images = 1

    def __init__(
        self,
        put_back: Callable[[_DecoderJob], None],
        kind: str,
        wanted: _Wanted,
        grant: Grant,
        fds: Sequence[int],
        options: DecoderOptions,
        image: str,
        turn: Turn,
        hashed: bool,
    ) -> None:
        self.answer: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        may_have_more = grant.memory_bytes < options.maximum_memory_bytes
        quick_s = None if grant.slow else options.first_cpu_s
        if quick_s is None:
            self.timeout_s = max(options.timeout_s, _SLOW_SHARE * options.maximum_cpu_s)
        else:
            self.timeout_s = min(options.timeout_s, _HUNG_SHARE * quick_s)
        self.packet = _packet(kind, wanted, grant.memory_bytes, may_have_more, quick_s, turn.instance, hashed)
        self.fds = packets.duplicate_all(fds)
        self.deaths = grant.deaths
        self.may_take_long = grant.memory_bytes > FIRST_BYTES
        self._grant = grant
        self._may_have_more = may_have_more
        self._maximum_memory_bytes = options.maximum_memory_bytes
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
        """An image that has killed a decoder must be the only one in hand, and so should one that may take long."""
        return self.deaths > 0 or self.may_take_long

    def on_sent(self, child: str, pid: int) -> None:
        """Record the decoder in the trace."""
        self._span.set({"child.name": child, "child.pid": pid})

    def on_answer(self, packet: Packet) -> None:
        """End with the facts, or with the reason why the image is refused. Raises `ProtocolError`."""
        match packet:
            case {"kind": "done"}:
                done = Decoded(_facts_in(packet, self._maximum_pixels), None, _hash_in(packet.get("hash")))
                if self.wanted:
                    self.answer.set_result(done)
                self.close()
            case {"kind": "more", "memory_bytes": int(needed_bytes), "slow": bool(slow)} if (
                slow and not self._grant.slow
            ) or (needed_bytes > self._grant.memory_bytes and self._may_have_more):
                self._want(memory_bytes=needed_bytes, slow=slow)
            case {"kind": "refused"} if (words := words_in(packet)) and words[0].startswith("image_"):
                self.fail(CannotBeDone(f"{self._image}: {words[1]}", reason=words[0]))
            case _:
                raise ProtocolError(f"an answer of the wrong shape to {self._kind}")

    def on_child_died(self, cause: Cause) -> None:
        """The image killed the decoder: try it once more alone, and fail it the second time."""
        if cause.reason == KILLED_FROM_OUTSIDE:
            self._on_child_killed_from_outside(cause)
            return
        if cause.reason in _TOO_LONG and self._grant.slow:
            self.fail(_TookTooLongError(cause))
            return
        if cause.reason == _PROCESSOR_TIME or cause.reason in _TOO_LONG:
            self._want(slow=True)
            return
        self.deaths += 1
        if not self.wanted:
            self.close()
        elif self._may_have_more:
            self._want(memory_bytes=self._maximum_memory_bytes)  # perhaps its libraries do not bear to have too little
        elif self.deaths >= _MAXIMUM_DEATHS:
            self.fail(_KilledTwiceError(cause))
        else:
            _log.warning("image killed its decoder; once more in a fresh one", image=self._image, cause=cause.message)
            self._put_back(self)

    def _want(self, *, memory_bytes: int = 0, slow: bool = False) -> None:
        """End with the grant that the image takes."""
        if memory_bytes > self._grant.memory_bytes and (self._grant.slow or self._grant.memory_bytes > FIRST_BYTES):
            memory_bytes = self._maximum_memory_bytes  # what was foreseen was wrong, and another attempt costs time
        memory_bytes = min(max(memory_bytes, self._grant.memory_bytes), self._maximum_memory_bytes)
        self.fail(_MoreWantedError(Grant(memory_bytes, slow or self._grant.slow, self.deaths)))

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


@lru_cache(maxsize=256)
def _packet(
    kind: str,
    wanted: _Wanted,
    memory_bytes: int,
    may_have_more: bool,
    quick_s: float | None,
    instance: str,
    hashed: bool,
) -> bytes:
    """The serialized job, cached: a model's recipe is always the same, and nearly all have the first grant.

    `alone`: in a process that is for this image only, so that it has, and keeps, no more memory than it is granted.
    """
    fields: dict[str, object] = {
        "memory_bytes": memory_bytes,
        "may_have_more": may_have_more,
        "quick_s": quick_s,
        "instance": hashlib.blake2b(instance.encode(errors="surrogatepass"), key=_NAME_KEY, digest_size=16).hexdigest(),
        "alone": quick_s is None or memory_bytes > FIRST_BYTES,
        "hashed": hashed,
    }
    if isinstance(wanted, JpegLimits):
        fields["limits"] = asdict(wanted)
    elif wanted is not None:
        fields["recipes"] = [asdict(recipe) for recipe in wanted]
    return packets.pack(kind, fields)


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


def _hash_in(fields: object) -> PerceptualHash | None:
    """The perceptual hash in an answer, if there is one. Raises `ProtocolError` for what is none."""
    match fields:
        case None:
            return None
        case {"bits": bytes(bits), "detail": None | bytes() as detail, "colour": bytes(colour)} if (
            len(bits) == HASH_BYTES and len(detail or bytes(DETAIL_BYTES)) == DETAIL_BYTES and len(colour) == 3
        ):
            finer = int.from_bytes(detail) if detail is not None else None
            return PerceptualHash(int.from_bytes(bits), finer, (colour[0], colour[1], colour[2]))
    raise ProtocolError("a perceptual hash of the wrong shape")

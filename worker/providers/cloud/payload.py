"""Decides whether a service accepts an image unchanged, and prepares what is sent: the image or a smaller JPEG."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from worker.errors import CannotBeDone
from worker.images.requests import JpegLimits
from worker.providers.base import Image


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What a service accepts: formats by Pillow's names, file size in bytes, shortest and longest side in pixels.

    `jpeg` are the limits of the JPEG that a decoder makes of an image outside these. `service` is its name for people.
    """

    service: str
    formats: frozenset[str]
    maximum_bytes: int
    minimum_side: int
    maximum_side: int
    jpeg: JpegLimits

    def rejection(self, image: Image) -> CannotBeDone | None:
        """The error for an image that can't be sent unchanged and may not be resized; None if it is within limits."""
        facts, size_bytes = image.facts, image.content.size_bytes
        if facts.format.upper() not in self.formats:
            what, reason = f"its format is {facts.format}", "format_not_taken"
        elif size_bytes > self.maximum_bytes:
            what, reason = f"it has {size_bytes} bytes, the most is {self.maximum_bytes}", "image_too_large"
        elif max(facts.width, facts.height) > self.maximum_side:
            what = f"it is {facts.width} x {facts.height}, the longest side may be {self.maximum_side}"
            reason = "image_too_large"
        elif min(facts.width, facts.height) < self.minimum_side:
            what = f"it is {facts.width} x {facts.height}, the shortest side must be {self.minimum_side}"
            reason = "image_too_small"
        else:
            return None
        return CannotBeDone(
            f"{self.service} does not take {image.asset_id}: {what}, and `resize` is off", reason=reason
        )


@dataclass(frozen=True, slots=True)
class Payload:
    """What will be sent for an image: the JPEG made of it, or the image's own bytes, which are not read yet."""

    image: Image
    jpeg: bytes | None

    @property
    def size_bytes(self) -> int:
        """Its size in bytes."""
        return self.image.content.size_bytes if self.jpeg is None else len(self.jpeg)

    def owned(self) -> Payload:
        """The same with a descriptor of its own, for a call that may outlast its caller; `close` closes it."""
        if self.jpeg is not None:
            return self
        return Payload(replace(self.image, content=self.image.content.duplicate()), None)

    async def as_jpeg(self, limits: ServiceLimits) -> Payload:
        """A JPEG of the same image, for a service that does not take the original though it says that it would.

        Raises CannotBeDone where none within the limits can be made, TryLater where a decoder was killed from outside.
        """
        return Payload(self.image, await _jpeg(self.image, limits))

    def close(self) -> None:
        """Close the descriptor of an `owned` payload."""
        if self.jpeg is None:
            self.image.content.close()

    async def read(self) -> bytes:
        """Its bytes, read only now so that queued images are not held in memory.

        They are read through a descriptor of its own: this payload may be closed meanwhile, and the number of its
        descriptor be another file's then. Raises OSError.
        """
        if self.jpeg is not None:
            return self.jpeg
        content = self.image.content.duplicate()
        reading = asyncio.ensure_future(asyncio.to_thread(content.read))
        reading.add_done_callback(lambda _: content.close())
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            reading.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else looks at it
            raise


async def prepare_payload(image: Image, limits: ServiceLimits, *, resize: bool) -> Payload:
    """What to send for an image. Raises CannotBeDone if it is outside the limits and no JPEG may or can be made."""
    rejection = limits.rejection(image)
    if rejection is None:
        return Payload(image, None)
    if not resize:
        raise rejection
    return Payload(image, await _jpeg(image, limits))


async def _jpeg(image: Image, limits: ServiceLimits) -> bytes:
    jpeg = await image.shrink(limits.jpeg)
    if len(jpeg) > limits.maximum_bytes:
        raise CannotBeDone(
            f"{image.asset_id} has {len(jpeg)} bytes even as a smaller JPEG; "
            f"{limits.service} takes {limits.maximum_bytes}",
            reason="image_too_large",
        )
    return jpeg

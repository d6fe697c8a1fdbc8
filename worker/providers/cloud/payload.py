"""Whether a service takes an image as it is, and what is sent where it does not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from worker.errors import CannotBeDone
from worker.images.requests import JpegLimits
from worker.providers.base import Image


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What a service takes: formats as Pillow names them, the largest file, the shortest and longest side in pixels.

    `jpeg` is what is asked of a decoder for an image that does not fit.
    """

    service: str
    formats: frozenset[str]
    maximum_bytes: int
    minimum_side: int
    maximum_side: int
    jpeg: JpegLimits

    def misfit(self, image: Image) -> CannotBeDone | None:
        """Why the image can't be sent as it is, or None when it can."""
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
    """What will be sent for an image: a JPEG that was made for the purpose, or the image's own bytes, not yet read."""

    image: Image
    jpeg: bytes | None

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return self.image.content.size_bytes if self.jpeg is None else len(self.jpeg)

    async def read(self) -> bytes:
        """Its bytes, read only now so that images that wait their turn stay out of memory."""
        return await asyncio.to_thread(self.image.content.read) if self.jpeg is None else self.jpeg


async def prepare_payload(image: Image, limits: ServiceLimits, *, resize: bool) -> Payload:
    """What to send for an image. Raises CannotBeDone when it does not fit and may not or can't be made to."""
    misfit = limits.misfit(image)
    if misfit is None:
        return Payload(image, None)
    if not resize:
        raise misfit
    jpeg = await image.shrink(limits.jpeg)
    if len(jpeg) > limits.maximum_bytes:
        raise CannotBeDone(
            f"{image.asset_id} has {len(jpeg)} bytes even as a smaller JPEG; "
            f"{limits.service} takes {limits.maximum_bytes}",
            reason="image_too_large",
        )
    return Payload(image, jpeg)

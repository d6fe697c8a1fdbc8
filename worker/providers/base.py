"""What a provider is: something that looks at one image and suggests tags for it.

A provider decides nothing about events: it answers, or it raises one of the errors of `worker.errors`, and the
pipeline does the rest. `CannotBeDone` means that it will never take this image, `TryLater` that it is down for now,
`Misconfigured` that an operator must act (a refused key), `Unavailable` that it has been switched off by a fault.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from worker.images.content import Content
from worker.images.requests import JpegLimits, PixelRecipe
from worker.messages import ImageFacts
from worker.settings import InstanceSettings

TENSORFLOW = "tensorflow"
"""The name of the local model's provider; all others ask a service."""

GOOGLE_CLOUD_VISION = "google_cloud_vision"
MICROSOFT_VISION = "microsoft_vision"

BUILT_IN_PROVIDERS = (TENSORFLOW, GOOGLE_CLOUD_VISION, MICROSOFT_VISION)
"""The names that no provider of another package may take."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A name that a provider suggests, with its confidence from 0 to 1."""

    name: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider says of one image. `model` names what answered, so that a result can be traced to it.

    `note` tells people what is wanting in an answer that is not whole.
    """

    suggestions: tuple[Suggestion, ...]
    model: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One image on its way through the providers.

    `pixels_fd` holds the model's input where the model is wanted: rows of RGB bytes, size x size x 3, top to bottom.
    `shrink` has a decoder child make a JPEG within limits. Providers read, and close nothing.
    """

    asset_id: str
    instance: str
    content: Content
    facts: ImageFacts
    mime_type: str
    pixels_fd: int | None
    shrink: Callable[[JpegLimits], Awaitable[bytes]]


class Provider(Protocol):
    """One way to tag an image; found by name in the entry-point group `autotag.providers`."""

    name: str

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has switched the provider on."""
        ...

    def pixel_recipe(self) -> PixelRecipe | None:
        """How `Image.pixels_fd` must be made for it, or None when it has no use for pixels."""
        ...

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """Why it does not take images of this type, or None when it does."""
        ...

    def unusable(self, instance: InstanceSettings) -> str | None:
        """Why it could answer nothing at all at present, or None. Asked before an event is begun; costs nothing."""
        ...

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """Look at the image. Raises CannotBeDone, TryLater, Misconfigured or Unavailable."""
        ...

    async def start(self) -> None:
        """Take up what it needs; returns soon (a model may go on loading behind it)."""
        ...

    async def close(self) -> None:
        """Let go of everything it took."""
        ...

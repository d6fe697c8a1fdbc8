"""The provider interface: a provider analyses one image and suggests tags for it.

A provider decides nothing about events: it returns an answer or raises one of the errors of `worker.errors`, and the
pipeline does the rest. `CannotBeDone` means that it will never accept this image, `TryLater` that it is down for now,
`Misconfigured` that an operator must act (a refused key), `Unavailable` that a fault has disabled it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from worker.errors import TryLater, Unavailable
from worker.images.content import Content
from worker.images.requests import JpegLimits, PixelRecipe
from worker.messages import ImageFacts, TagKind
from worker.settings import InstanceSettings
from worker.supervision.turns import OWN_TURN, Turn

TENSORFLOW = "tensorflow"
"""The name of the provider that runs the local model."""

GOOGLE_CLOUD_VISION = "google_cloud_vision"
MICROSOFT_VISION = "microsoft_vision"

BUILT_IN_PROVIDERS = (TENSORFLOW, GOOGLE_CLOUD_VISION, MICROSOFT_VISION)
"""The names that no provider of another package may take."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A tag name suggested by a provider, with a confidence from 0 to 1.

    `concept`: the id of what it means, if it is one of the vocabulary's; `name` is its English name then. `kind`: as in
    a tag. `specific`: a label that broader terms are suggested beside. `models`: of several local ones, those that
    suggest it. `group`: what they are about; those of the groups that one `suppresses` are no tags where `suppressing`
    reaches the threshold.
    """

    name: str
    confidence: float
    concept: str | None = None
    kind: TagKind = "label"
    specific: bool = False
    models: tuple[str, ...] = ()
    group: str = ""
    suppresses: tuple[str, ...] = ()
    suppressing: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's suggestions for one image. `model` identifies what produced them, so that results are traceable.

    `note` describes for people what is missing from an incomplete answer; it is None for a complete one.
    """

    suggestions: tuple[Suggestion, ...]
    model: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One image as it is passed to the providers.

    `pixels_fd` holds the squares that a provider asked for by `pixel_recipe`, one after another, else it is None: rows
    of RGB bytes, size x size x 3, top to bottom. The caller owns `content` and `pixels_fd`: providers read from them
    and never close them. `turn` is on whose behalf it waits for a child. `shrink_content` is what `shrink` calls.
    """

    asset_id: str
    instance: str
    content: Content
    facts: ImageFacts
    mime_type: str
    pixels_fd: int | None
    shrink_content: Callable[[Content, JpegLimits], Awaitable[bytes]]
    turn: Turn = OWN_TURN

    async def shrink(self, limits: JpegLimits) -> bytes:
        """Have a decoder child encode it as a JPEG within limits. Raises CannotBeDone, or TryLater."""
        return await self.shrink_content(self.content, limits)


class Provider(Protocol):
    """One way to tag an image. Third-party providers are found in the entry-point group `autotag.providers`."""

    name: str

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has enabled the provider. Must not raise."""
        ...

    def pixel_recipe(self) -> PixelRecipe | tuple[PixelRecipe, ...] | None:
        """Of the square, or the squares, that `Image.pixels_fd` must hold for the provider; None if it needs none."""
        ...

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """Why the provider does not accept images of this type, or None if it does."""
        ...

    def unusable(self, instance: InstanceSettings) -> str | None:
        """Why the provider cannot answer at all at present, or None. Called before an event is processed; cheap."""
        ...

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """Suggest tags for the image. Raises CannotBeDone, TryLater, Misconfigured or Unavailable."""
        ...

    async def start(self) -> None:
        """Acquire resources. Returns quickly; a model may go on loading in the background."""
        ...

    async def close(self) -> None:
        """Release all resources acquired by `start`."""
        ...


@runtime_checkable
class Waiting(Protocol):
    """The optional part of a provider that knows beforehand whether it can be asked: one with limits of its own."""

    def why_wait(self, asset_id: str, instance_name: str, instance: InstanceSettings) -> TryLater | Unavailable | None:
        """Why the provider cannot be asked now for an instance, or None: asked now, it would not have to wait long.

        Called before an event's image is fetched; must be cheap and must not raise. None is a promise for one image,
        which is taken into account at the next calls. `after_s` of the error is when to come back.
        """
        ...


@runtime_checkable
class Promising(Protocol):
    """A provider for which the None of `Waiting.why_wait` is a promise that it can take back."""

    def not_asked(self, instance_name: str, instance: InstanceSettings) -> None:
        """`why_wait` gave None for an image that the provider was not asked about then: its promise is free again."""
        ...


@runtime_checkable
class Repeatable(Protocol):
    """The optional part of a provider whose answers may be given again for near-duplicates (`near_duplicates`)."""

    def answer_depends_on(self, instance: InstanceSettings) -> str:
        """All that an answer depends on besides the image: the model, and those settings of the instance that count."""
        ...

    def cpu_s_per_answer(self) -> float:
        """Processor time that an answer takes on this machine, on average; 0 where it is not known."""
        ...

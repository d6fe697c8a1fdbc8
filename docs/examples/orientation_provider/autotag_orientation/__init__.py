"""Suggests the orientation of an image: a complete Autotag provider, as an example for your own.

It is enabled with

    [defaults.providers.orientation]
    enabled = true
    panorama_ratio = 2.5
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.errors import Misconfigured
from worker.images.requests import PixelRecipe
from worker.providers.base import Answer, Image, Suggestion
from worker.providers.registry import ProviderContext
from worker.settings import InstanceSettings


class OrientationSettings(BaseModel):
    """The provider's own table in the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    panorama_ratio: float = Field(2.0, gt=1, description="From this ratio of the sides on, the image is a panorama.")


class Orientation:
    """Suggests `landscape`, `portrait` or `square`, and also `panorama` for wide or tall images."""

    name = "orientation"

    def __init__(self, context: ProviderContext) -> None:
        """`context` has the service's settings and directories for files; this provider needs neither."""

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has enabled it. Errors in the rest of its table are raised by `tag`."""
        return instance.providers.get(self.name, {}).get("enabled") is True

    def pixel_recipe(self) -> PixelRecipe | None:
        """None: the size is known without pixels."""
        return None

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """None: every format that a decoder reads is accepted."""
        return None

    def unusable(self, instance: InstanceSettings) -> str | None:
        """None: it depends on nothing that could fail."""
        return None

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """The orientation; the confidence grows with the ratio of the sides."""
        width, height = image.facts.width, image.facts.height
        ratio = max(width, height) / min(width, height)
        name = "square" if width == height else "landscape" if width > height else "portrait"
        suggestions = [Suggestion(name, 1.0 if width == height else min(1.0, ratio - 0.5))]
        if ratio >= self._settings(instance).panorama_ratio:
            suggestions.append(Suggestion("panorama", 1.0))
        return Answer(tuple(suggestions), "orientation/1")

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def _settings(self, instance: InstanceSettings) -> OrientationSettings:
        try:
            return OrientationSettings.model_validate(instance.providers.get(self.name, {}))
        except ValidationError as error:
            raise Misconfigured(f"`providers.{self.name}`: {error}", reason="settings_invalid") from error

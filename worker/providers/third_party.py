"""A provider of another package, kept from taking the others' tags, or the whole service, down with it.

What `tag` raises is turned into a reply by whoever asks. The questions besides are asked for every event and at start,
where an exception would be everybody's: here it is logged, once, and the provider counts as on and willing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from worker.images.requests import PixelRecipe
from worker.providers.base import Answer, Image, Provider
from worker.settings import InstanceSettings

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class ThirdPartyProvider:
    """Stands before a provider and passes everything on."""

    def __init__(self, provider: Provider) -> None:
        self.name = provider.name
        self._provider = provider
        self._told: set[str] = set()

    def enabled(self, instance: InstanceSettings) -> bool:
        """What the provider says; on when it raises, so that `tag` can tell what is wrong."""
        return self._ask(lambda: self._provider.enabled(instance), "enabled", True)

    def pixel_recipe(self) -> PixelRecipe | None:
        """What the provider says; none when it raises."""
        return self._ask(self._provider.pixel_recipe, "pixel_recipe", None)

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """What the provider says; no refusal when it raises."""
        return self._ask(lambda: self._provider.refuses(mime_type, instance), "refuses", None)

    def unusable(self, instance: InstanceSettings) -> str | None:
        """What the provider says; usable when it raises."""
        return self._ask(lambda: self._provider.unusable(instance), "unusable", None)

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """What the provider says, or raises."""
        return await self._provider.tag(image, instance)

    async def start(self) -> None:
        """Start the provider."""
        await self._provider.start()

    async def close(self) -> None:
        """Close the provider."""
        await self._provider.close()

    def __getattr__(self, name: str) -> Any:
        """What it can do besides, such as `check`."""
        return getattr(self._provider, name)

    def _ask(self, question: Callable[[], T], called: str, otherwise: T) -> T:
        try:
            return question()
        except Exception:  # noqa: BLE001 - somebody else's code, asked where its mistake would be everybody's
            if called not in self._told:
                self._told.add(called)
                _log.exception("provider raised where it must not", provider=self.name, method=called)
            return otherwise

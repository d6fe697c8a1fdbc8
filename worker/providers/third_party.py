"""A wrapper around a third-party provider that keeps its exceptions away from other providers and the service.

What `tag` raises is turned into a reply by its caller (`worker.providers.replies`). The other methods are called for
every event and at start, where an exception would affect all providers: here it is logged, once for each method, and
a default is returned that counts the provider as enabled and usable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from worker.errors import TryLater, Unavailable
from worker.images.requests import PixelRecipe
from worker.providers.base import Answer, Image, Promising, Provider, Waiting
from worker.settings import InstanceSettings

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class ThirdPartyProvider:
    """Delegates every call to the wrapped provider."""

    def __init__(self, provider: Provider) -> None:
        self.name = provider.name
        self._provider = provider
        self._logged: set[str] = set()

    def enabled(self, instance: InstanceSettings) -> bool:
        """The provider's value; True if it raises, so that `tag` can report what is wrong."""
        return self._call(lambda: self._provider.enabled(instance), "enabled", True)

    def pixel_recipe(self) -> PixelRecipe | tuple[PixelRecipe, ...] | None:
        """The provider's value; None if it raises."""
        return self._call(self._provider.pixel_recipe, "pixel_recipe", None)

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """The provider's value; None, no refusal, if it raises."""
        return self._call(lambda: self._provider.refuses(mime_type, instance), "refuses", None)

    def unusable(self, instance: InstanceSettings) -> str | None:
        """The provider's value; None, usable, if it raises."""
        return self._call(lambda: self._provider.unusable(instance), "unusable", None)

    def why_wait(self, asset_id: str, instance_name: str, instance: InstanceSettings) -> TryLater | Unavailable | None:
        """The provider's value if it has this optional method; None, it can be asked, if not, and if it raises."""
        if not isinstance(self._provider, Waiting):
            return None
        provider = self._provider
        return self._call(lambda: provider.why_wait(asset_id, instance_name, instance), "why_wait", None)

    def not_asked(self, instance_name: str, instance: InstanceSettings) -> None:
        """Passed on to a provider that has this optional method."""
        if isinstance(self._provider, Promising):
            provider = self._provider
            self._call(lambda: provider.not_asked(instance_name, instance), "not_asked", None)

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """The provider's answer, or its exception."""
        return await self._provider.tag(image, instance)

    async def start(self) -> None:
        """Start the provider; whatever it raises ends the start of the service."""
        await self._provider.start()

    async def close(self) -> None:
        """Close the provider; what it raises is passed on."""
        await self._provider.close()

    def __getattr__(self, name: str) -> Any:
        """Optional methods of the provider, such as `check`."""
        return getattr(self._provider, name)

    def _call(self, function: Callable[[], T], method: str, default: T) -> T:
        try:
            return function()
        except Exception:  # noqa: BLE001 - third-party code, called where an exception would affect every provider
            if method not in self._logged:
                self._logged.add(method)
                _log.exception("provider raised where it must not", provider=self.name, method=method)
            return default

"""A provider with scripted replies, for tests of the code around providers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from worker.images.requests import PixelRecipe
from worker.providers.base import Answer, Image, Suggestion
from worker.settings import InstanceSettings


class ScriptedProvider:
    """Answers with `suggestions` after `delay_s` or once `released` is set, or raises `error`.

    `asked` counts the calls of `tag`.
    """

    def __init__(
        self,
        name: str,
        *suggestions: tuple[str, float],
        delay_s: float = 0.0,
        released: asyncio.Event | None = None,
        error: Exception | None = None,
        enabled: bool = True,
        refuses: Callable[[str], str | None] = lambda _mime_type: None,
    ) -> None:
        self.name = name
        self.suggestions = tuple(Suggestion(*each) for each in suggestions)
        self.delay_s = delay_s
        self.released = released
        self.error = error
        self.is_enabled = enabled
        self.refusal = refuses
        self.asked = 0

    def enabled(self, instance: InstanceSettings) -> bool:
        return self.is_enabled

    def pixel_recipe(self) -> PixelRecipe | None:
        return None

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        return self.refusal(mime_type)

    def unusable(self, instance: InstanceSettings) -> str | None:
        return None

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        if self.released is not None:
            await self.released.wait()
        if self.error is not None:
            raise self.error
        return Answer(self.suggestions, f"{self.name}@1")

    async def start(self) -> None: ...

    async def close(self) -> None: ...

"""The provider for the local model: sends pixels to the model child and maps its scores to labels."""

from __future__ import annotations

from worker.images.requests import PixelRecipe
from worker.models.manifest import ModelPackage
from worker.providers.base import TENSORFLOW, Answer, Image, Suggestion
from worker.settings import InstanceSettings
from worker.supervision.model_pool import ModelPool


class TensorFlow:
    """Suggests the labels of a model package; accepts every format that a decoder reads."""

    name = TENSORFLOW

    def __init__(self, package: ModelPackage, pool: ModelPool) -> None:
        self._package = package
        self._pool = pool
        self._labels = package.labels
        self._recipe = package.manifest.recipe()

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has enabled the local model."""
        return instance.tensorflow.enabled

    def pixel_recipe(self) -> PixelRecipe | None:
        """The input that the model package asks for."""
        return self._recipe

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """None: every format that a decoder reads is accepted."""
        return None

    def unusable(self, instance: InstanceSettings) -> str | None:
        """Why the model pool has been disabled, or None."""
        return self._pool.disabled_reason

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """The labels at or above the instance's threshold, best first. Raises Unavailable if the pool is disabled."""
        if image.pixels_fd is None:
            raise ValueError(f"{image.asset_id} came without the pixels that pixel_recipe asks for")
        floor = instance.tensorflow.confidence_threshold
        scores = await self._pool.score(image.pixels_fd, floor, image.asset_id, image.turn)
        suggestions = tuple(Suggestion(self._labels[index], confidence) for index, confidence in scores)
        return Answer(suggestions, self._package.identity)

    async def start(self) -> None:
        """Launch the model children; images wait until one is ready."""
        await self._pool.start()

    async def close(self) -> None:
        """Stop the model children."""
        await self._pool.close()

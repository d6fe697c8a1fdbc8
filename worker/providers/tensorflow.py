"""The local model: pixels go to the supervised model child, labels with a confidence come back."""

from __future__ import annotations

from worker.images.requests import PixelRecipe
from worker.models.manifest import ModelPackage
from worker.providers.base import TENSORFLOW, Answer, Image, Suggestion
from worker.settings import InstanceSettings
from worker.supervision.model_pool import ModelPool


class TensorFlow:
    """Names what a model package's labels say of an image; takes every format that a decoder reads."""

    name = TENSORFLOW

    def __init__(self, package: ModelPackage, pool: ModelPool) -> None:
        self._package = package
        self._pool = pool
        self._labels = package.labels
        self._recipe = package.manifest.recipe()

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has switched the local model on."""
        return instance.tensorflow.enabled

    def pixel_recipe(self) -> PixelRecipe | None:
        """The model's input."""
        return self._recipe

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """Nothing that a decoder can read."""
        return None

    def unusable(self, instance: InstanceSettings) -> str | None:
        """The reason for which the model has been disabled, if it has."""
        return self._pool.disabled_reason

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """The labels at or above the instance's threshold, best first. Raises Unavailable when disabled."""
        if image.pixels_fd is None:
            raise ValueError(f"{image.asset_id} came without the pixels that pixel_recipe asks for")
        scores = await self._pool.score(image.pixels_fd, instance.tensorflow.confidence_threshold, image.asset_id)
        suggestions = tuple(Suggestion(self._labels[index], confidence) for index, confidence in scores)
        return Answer(suggestions, self._package.identity)

    async def start(self) -> None:
        """Launch the model child; images wait until it is ready."""
        await self._pool.start()

    async def close(self) -> None:
        """Stop the model child."""
        await self._pool.close()

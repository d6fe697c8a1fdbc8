"""The provider for the local models: sends pixels to the model child and converts its scores to suggestions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from worker.images.requests import PixelRecipe
from worker.models.manifest import Calibration
from worker.models.selection import LocalModels
from worker.providers.base import TENSORFLOW, Answer, Image, Suggestion
from worker.settings import InstanceSettings
from worker.supervision.model_pool import LabelScores, ModelPool
from worker.tagging.confidences import LEAST_SCORE, AllMeanings, Confidence


class TensorFlow:
    """Suggests labels of model packages, and what is above them; accepts every format that a decoder reads."""

    name = TENSORFLOW

    def __init__(
        self,
        models: LocalModels,
        pool: ModelPool,
        calibration: Mapping[str, Calibration] = MappingProxyType({}),
        *,
        apart: bool = False,
    ) -> None:
        """`calibration`: the operator's, by model. Raises Misconfigured where a manifest names what is not there.

        `apart`: suggest of concepts what each model says, in place of what they say together.
        """
        self._models = models
        self._apart = apart
        self._pool = pool
        self._meanings = AllMeanings(models, calibration)
        self._depends_on = f"{models.identity} {sorted(calibration.items())}"

    def enabled(self, instance: InstanceSettings) -> bool:
        """Whether this instance has enabled the local model."""
        return instance.tensorflow.enabled

    def pixel_recipe(self) -> tuple[PixelRecipe, ...]:
        """The inputs that the model packages ask for."""
        return self._models.recipes

    def refuses(self, mime_type: str, instance: InstanceSettings) -> str | None:
        """None: every format that a decoder reads is accepted."""
        return None

    def unusable(self, instance: InstanceSettings) -> str | None:
        """Why the model pool has been disabled, or None."""
        return self._pool.disabled_reason

    async def tag(self, image: Image, instance: InstanceSettings) -> Answer:
        """What is at or above the least of the instance's thresholds. Raises Unavailable if the pool is disabled."""
        if image.pixels_fd is None:
            raise ValueError(f"{image.asset_id} came without the pixels that pixel_recipe asks for")
        least = _least_threshold(instance)
        by_concepts = instance.tensorflow.tags == "concepts"
        floor = LEAST_SCORE if by_concepts else least
        scores = await self._pool.score(image.pixels_fd, floor, image.asset_id, image.turn)
        return Answer(tuple(map(_suggestion, self._found(scores, least, by_concepts))), self._models.identity)

    def _found(self, scores: LabelScores, least: float, by_concepts: bool) -> tuple[Confidence, ...]:
        if not by_concepts:
            return self._meanings.scored(scores)
        return self._meanings.apart(scores, least) if self._apart else self._meanings.confidences(scores, least)

    def answer_depends_on(self, instance: InstanceSettings) -> str:
        """The model packages and their curves, and what `tag` reads of the settings."""
        return f"{self._depends_on} {instance.tensorflow.tags} {_least_threshold(instance)}"

    def cpu_s_per_answer(self) -> float:
        """Of the model children."""
        return self._pool.processor_time.per_image_s

    async def start(self) -> None:
        """Launch the model children; images wait until one is ready."""
        await self._pool.start()

    async def close(self) -> None:
        """Stop the model children."""
        await self._pool.close()


def _least_threshold(instance: InstanceSettings) -> float:
    return min((instance.tensorflow.threshold, *instance.labels.thresholds.values()))


def _suggestion(found: Confidence) -> Suggestion:
    return Suggestion(
        found.name,
        found.value,
        found.concept,
        found.kind,
        found.specific,
        found.models,
        found.group,
        found.suppresses,
        found.suppressing,
    )

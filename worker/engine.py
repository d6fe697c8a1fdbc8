"""The parts that look at images, built from the settings: decoder children, providers, and the tagger over them.

`autotag run` feeds a workshop from RabbitMQ, `autotag tag` from the command line.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

from worker.supervision.decoder_pool import DecoderCrew, DecoderOptions
from worker.supervision.model_pool import ModelCrew, ModelOptions
from worker.supervision.pool import Observer
from worker.supervision.lifecycle import Notice
from worker.operations.metrics import Metrics
from worker.models.build import ensure
from worker.models.manifest import ModelPackage
from worker.models.staging import ProgressCallback, no_progress
from worker.providers.base import Provider
from worker.providers.checks import Checkable
from worker.providers.checks import Finding as ProviderFinding
from worker.providers.registry import make_wanted, wanted
from worker.providers.tensorflow import TensorFlow
from worker.supervision.relaunch import RelaunchRule
from worker.settings import DecoderSettings, InstanceSettings, Settings, TensorFlowSettings
from worker.sources import Sources
from worker.tagging.tagger import Tagger


def _nobody(_child: str, _notice: Notice) -> None:
    """For those who do not care how the children fare."""


class Workshop:
    """Sources, decoders, providers and the tagger over them. Made by `open_workshop`, ended by `close`."""

    def __init__(
        self, settings: Settings, package: ModelPackage | None, metrics: Metrics, observe: Observer = _nobody
    ) -> None:
        """`package` is what the model child runs; None where no instance wants the local model."""
        self.sources = Sources(settings.sources.concurrency)
        self.decoders = DecoderCrew(_decoder_options(settings), observe=observe)
        self.model: ModelCrew | None = None
        if package is not None:
            options = _model_options(settings.tensorflow, package)
            self.model = ModelCrew(
                options,
                observe=observe,
                on_batch=metrics.children.batch,
                others_at_work=lambda: self.decoders.at_work,
            )
            metrics.model(package.manifest.name, package.identity)
        local = [TensorFlow(package, self.model)] if package is not None and self.model is not None else []
        self.providers: tuple[Provider, ...] = (*local, *make_wanted(settings, metrics.cloud))
        self.tagger = Tagger(self.decoders, self.providers, metrics)

    async def start(self) -> None:
        """Launch the children. Images wait until they are ready."""
        await self.decoders.start()
        for provider in self.providers:
            await provider.start()

    async def close(self) -> None:
        """End the children and connections, and wait for their end."""
        for provider in self.providers:
            await provider.close()
        await self.decoders.close()
        await self.sources.close()

    async def kill(self) -> None:
        """End the children at once, whatever they are doing; a `close` under way then has nothing to wait for."""
        crews = (self.decoders, self.model) if self.model is not None else (self.decoders,)
        await asyncio.gather(*(crew.close(at_once=True) for crew in crews))

    def reset(self) -> None:
        """Forget the crashes, and launch what had been disabled."""
        self.decoders.reset()
        if self.model is not None:
            self.model.reset()

    def review(self, settings: Settings) -> Iterable[ProviderFinding]:
        """What the settings alone give away about providers, such as an API that was retired. Costs nothing.

        What follows from the defaults is told once, not once an instance.
        """
        told: set[str] = set()
        for name, instance in named_instances(settings):
            if not instance.enabled or (name == "defaults" and settings.unknown_instances == "skip"):
                continue
            for provider in self.providers:
                if provider.enabled(instance) and isinstance(provider, Checkable):
                    found = [each for each in provider.review(name, instance) if each.message not in told]
                    told.update(each.message for each in found)
                    yield from found

    def why_nothing_can_be_tagged(self, settings: Settings) -> str | None:
        """Why no provider that any instance has switched on could answer; None when one could, or none is on."""
        reasons = [
            provider.unusable(instance)
            for instance in instances(settings)
            for provider in self.providers
            if provider.enabled(instance)
        ]
        if reasons and self.decoders.disabled_reason is not None:  # no provider sees an image that nobody can decode
            return f"no decoder can start: {self.decoders.disabled_reason}"
        return reasons[0] if reasons and None not in reasons else None


BUILT_FROM = ("tensorflow", "decoder", "sources", "models", "cloud")
"""Sections of the settings that a workshop is built from; the rest is looked at for each event."""


async def open_workshop(
    settings: Settings, metrics: Metrics, observe: Observer = _nobody, progress: ProgressCallback = no_progress
) -> Workshop:
    """A started workshop; the model is built first if it has to be. Raises Misconfigured."""
    package = None
    if wants_model(settings):
        package = await asyncio.to_thread(ensure, settings.tensorflow.model, settings.cache_dir, progress)
    workshop = Workshop(settings, package, metrics, observe)
    await workshop.start()
    return workshop


def needs_new_workshop(old: Settings, new: Settings) -> bool:
    """Whether a change of settings touches anything that a workshop is built from."""
    return (
        wants_model(old) != wants_model(new)
        or wanted(old) != wanted(new)
        or any(getattr(old, section) != getattr(new, section) for section in BUILT_FROM)
    )


def named_instances(settings: Settings) -> Iterable[tuple[str, InstanceSettings]]:
    """The instances that have settings of their own, and what holds for the others under the name `defaults`."""
    return (("defaults", settings.defaults), *settings.instances.items())


def instances(settings: Settings) -> Iterable[InstanceSettings]:
    """Every set of instance settings that an event could meet."""
    return (instance for _, instance in named_instances(settings))


def wants_model(settings: Settings) -> bool:
    """Whether any instance has switched the local model on."""
    return settings.enabled and any(each.enabled and each.tensorflow.enabled for each in instances(settings))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _decoder_options(settings: Settings) -> DecoderOptions:
    decoder: DecoderSettings = settings.decoder
    return DecoderOptions(
        children=decoder.children or _cores(),
        timeout_s=decoder.timeout_s,
        maximum_pixels=decoder.maximum_pixels,
        maximum_bytes=settings.sources.maximum_bytes,
        maximum_memory_bytes=decoder.maximum_memory_bytes,
        maximum_cpu_s=decoder.maximum_cpu_s,
        images_per_child=decoder.images_per_child,
        sandbox=decoder.sandbox,
    )


def _model_options(tensorflow: TensorFlowSettings, package: ModelPackage) -> ModelOptions:
    return ModelOptions(
        package=package.directory,
        threads=tensorflow.threads or _cores(),
        spare=tensorflow.spare,
        batch_size=tensorflow.batch_size,
        batch_wait_s=tensorflow.batch_wait_s,
        rule=RelaunchRule(
            tensorflow.maximum_number_of_relaunches, tensorflow.maximum_number_of_relaunches_time_interval
        ),
        start_timeout_s=tensorflow.start_timeout_s,
        batch_timeout_s=tensorflow.batch_timeout_s,
        stop_timeout_s=tensorflow.stop_timeout_s,
        images_per_child=tensorflow.images_per_child,
        maximum_memory_bytes=tensorflow.maximum_memory_bytes,
    )

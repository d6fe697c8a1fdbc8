"""The engine: what is built from the settings to tag images, and the frozen pair of both that an event is tagged under.

`autotag run` feeds an engine from RabbitMQ, `autotag tag` from the command line.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.models.build import ensure_model
from worker.models.manifest import ModelPackage
from worker.models.staging import ProgressCallback, ignore_progress
from worker.operations.metrics import Metrics
from worker.providers.base import Provider
from worker.providers.checks import Checkable, ProviderCheck
from worker.providers.registry import enabled_names, make_enabled
from worker.providers.tensorflow import TensorFlow
from worker.settings import (
    DecoderSettings,
    InstanceSettings,
    Settings,
    TensorFlowSettings,
    settings_digest,
)
from worker.sources import Sources
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool
from worker.supervision.lifecycle import Notice
from worker.supervision.model_pool import ModelOptions, ModelPool
from worker.supervision.pool import Observer
from worker.supervision.relaunch import RelaunchRule
from worker.supervision.turns import Precedence
from worker.tagging.tagger import Tagger

BUILT_FROM = ("tensorflow", "decoder", "sources", "models", "cloud")
"""Sections of the settings that an engine is built from; the rest is read for each event."""


def _ignore(_child: str, _notice: Notice) -> None:
    """For callers that do not observe the children."""


class Engine:
    """Sources, decoders, providers, and the tagger over them. Made by `open_engine`, ended by `close`."""

    def __init__(
        self, settings: Settings, package: ModelPackage | None, metrics: Metrics, observe: Observer = _ignore
    ) -> None:
        """`package` is what the model child runs; None where no instance wants the local model."""
        self.sources = Sources(
            settings.sources.concurrency,
            failures=settings.sources.failures_to_open_circuit,
            circuit_open_s=settings.sources.circuit_open_s,
        )
        precedence = Precedence(maximum_bulk=max(1, _cores() // 2))
        self.decoders = DecoderPool(_decoder_options(settings), observe=observe, precedence=precedence)
        self.model: ModelPool | None = None
        if package is not None:
            options = _model_options(settings.tensorflow, package)
            self.model = ModelPool(
                options,
                observe=observe,
                on_batch=metrics.children.on_batch,
                others_at_work=lambda: self.decoders.at_work,
                precedence=precedence,
            )
            metrics.use_model(package.manifest.name, package.identity)
        local = [TensorFlow(package, self.model)] if package is not None and self.model is not None else []
        self.providers: tuple[Provider, ...] = (*local, *make_enabled(settings, metrics.cloud))
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
        pools = (self.decoders, self.model) if self.model is not None else (self.decoders,)
        await asyncio.gather(*(pool.close(at_once=True) for pool in pools))

    def reset(self) -> None:
        """Forget the crashes, and launch what had been disabled."""
        self.decoders.reset()
        if self.model is not None:
            self.model.reset()


@dataclass(frozen=True, slots=True)
class Active:
    """The settings in force and the engine built from them.

    An event reads it once, at its beginning, and uses it to its end; a reload builds the next one and swaps it whole.
    """

    settings: Settings
    engine: Engine
    _digests: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def digest(self, instance_name: str) -> str:
        """The settings digest that goes into the id of a result for this instance."""
        instance = self.settings.instance(instance_name) or self.settings.defaults
        key = id(instance)  # the settings keep their instances, so the number stays theirs
        if key not in self._digests:
            self._digests[key] = settings_digest(self.settings, instance)
        return self._digests[key]

    def review_providers(self) -> Iterable[ProviderCheck]:
        """What the settings alone show about the providers, such as a missing key or an API that was retired."""
        return review_providers(self.settings, self.engine.providers)

    def why_unusable(self, provider: Provider) -> str | None:
        """Why a provider cannot answer for any instance that has switched it on; None when it can, or none has."""
        reasons = [provider.unusable(each) for each in self._enabling(provider)]
        return None if not reasons or None in reasons else reasons[0]

    def number_of_users(self, provider: Provider) -> int:
        """How many sets of instance settings have switched a provider on."""
        return len(self._enabling(provider))

    def why_nothing_can_be_tagged(self) -> str | None:
        """Why no provider that any instance has switched on could answer; None when one could, or none is on."""
        reasons = [why for _, why in self._what_instances_lack()]
        return reasons[0] if reasons and None not in reasons else None

    @property
    def tags_anything(self) -> bool:
        """Whether any event could be tagged if all that has been switched on worked; else every one is `skipped`."""
        return any(True for _ in self._what_instances_lack())

    def lacking(self) -> dict[str, str]:
        """The instances none of whose providers could answer, by name, with why; one without a provider is absent."""
        return {name: why for name, why in self._what_instances_lack() if why is not None}

    def _what_instances_lack(self) -> Iterable[tuple[str, str | None]]:
        """Every instance that has a provider, and why none of them could answer; None where one could."""
        disabled = self.engine.decoders.disabled_reason
        for name, instance in self.settings.reachable().items():
            reasons = [each.unusable(instance) for each in self.engine.providers if each.enabled(instance)]
            if reasons and disabled is not None:  # without a decoder no provider sees an image
                yield name, f"no decoder can start: {disabled}"
            elif reasons:
                yield name, None if None in reasons else reasons[0]

    def _enabling(self, provider: Provider) -> list[InstanceSettings]:
        return [each for each in self.settings.reachable().values() if provider.enabled(each)]


async def open_engine(
    settings: Settings, metrics: Metrics, observe: Observer = _ignore, progress: ProgressCallback = ignore_progress
) -> Engine:
    """A started engine; the model is built first if it has to be. Raises Misconfigured."""
    package = None
    if wants_model(settings):
        package = await asyncio.to_thread(ensure_model, settings.tensorflow.model, settings.cache_dir, progress)
    engine = Engine(settings, package, metrics, observe)
    await engine.start()
    return engine


def needs_new_engine(old: Settings, new: Settings) -> bool:
    """Whether a change of settings touches anything that an engine is built from."""
    return (
        wants_model(old) != wants_model(new)
        or enabled_names(old) != enabled_names(new)
        or any(getattr(old, section) != getattr(new, section) for section in BUILT_FROM)
    )


def wants_model(settings: Settings) -> bool:
    """Whether any instance has switched the local model on."""
    return any(each.tensorflow.enabled for each in settings.reachable().values())


def review_providers(settings: Settings, providers: Iterable[Provider]) -> Iterable[ProviderCheck]:
    """What the settings alone show about providers. Costs nothing.

    What follows from the defaults is reported once, not once an instance.
    """
    reported: set[str] = set()
    for name, instance in settings.reachable().items():
        for provider in providers:
            if provider.enabled(instance) and isinstance(provider, Checkable):
                found = [each for each in provider.review(name, instance) if each.message not in reported]
                reported.update(each.message for each in found)
                yield from found


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

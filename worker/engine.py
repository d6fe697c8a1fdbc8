"""The engine: what is built from the settings to tag images, and the frozen pair of both that an event is tagged under.

`autotag run` feeds an engine from RabbitMQ, `autotag tag` from the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Protocol

from worker.errors import Misconfigured
from worker.models.build import ensure_models
from worker.models.selection import LocalModels
from worker.models.staging import ProgressCallback, ignore_progress
from worker.operations.metrics import Metrics
from worker.operations.metrics.events import uncounted
from worker.providers.base import Provider
from worker.providers.checks import Checkable, ProviderCheck
from worker.providers.registry import enabled_names, make_enabled, nothing_is_switched_on
from worker.providers.tensorflow import TensorFlow
from worker.settings import (
    DecoderSettings,
    InstanceSettings,
    Settings,
    TensorFlowSettings,
    settings_digest,
)
from worker.sources import Sources
from worker.supervision.cgroup import usable_cores
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool
from worker.supervision.lifecycle import Notice
from worker.supervision.memory import DecoderMemory, decoder_memory
from worker.supervision.model_pool import ModelOptions, ModelPool
from worker.supervision.pool import Observer, Pool
from worker.supervision.relaunch import RelaunchRule
from worker.supervision.tasks import TOO_FEW_TASKS, Tasks, tasks
from worker.supervision.turns import Precedence
from worker.tagging.near_duplicates import NearDuplicates
from worker.tagging.shadow import Shadow
from worker.tagging.tagger import Tagger

BUILT_FROM = ("tensorflow", "decoder", "sources", "models", "cloud", "near_duplicates")
"""Sections of the settings that an engine is built from; the rest is read for each event."""


def _ignore(_child: str, _notice: Notice) -> None:
    """For callers that do not observe the children."""


class _Part(Protocol):
    """What an engine is built of, and hands over to the next engine where the settings of it are the same."""

    async def start(self) -> None:
        """Launch its children, open its connections."""
        ...

    async def close(self) -> None:
        """End them, and wait for their end."""
        ...


class Engine:
    """Sources, decoders, providers, and the tagger over them. Made by `open_engine`, ended by `close`.

    Made `beside` another engine, it uses those of its parts whose settings have not changed, with all that they
    remember: the model's crashes, or that it is disabled. The other owns them until this one has taken over.
    """

    def __init__(
        self,
        settings: Settings,
        models: LocalModels | None,
        metrics: Metrics,
        observe: Observer = _ignore,
        beside: Engine | None = None,
    ) -> None:
        """`models` are what the model child runs; None where no instance wants a local model."""
        self._settings = settings
        self._metrics = metrics
        self._beside = beside
        same = partial(_unchanged, beside._settings if beside else None, settings)
        self.models = models
        # One for all pools that an image goes through, also where some of them are those of the other engine.
        self._precedence: Precedence = (
            beside._precedence if beside else Precedence(maximum_bulk=max(1, usable_cores() // 2))
        )
        self.sources: Sources
        self.decoders: DecoderPool
        self.model: ModelPool | None = None
        self.shadow: Shadow | None = None
        """A candidate beside the models in use."""
        self._local: TensorFlow | None = None
        self._others: tuple[Provider, ...]
        if beside is not None and same("sources"):
            self.sources = beside.sources
        else:
            self.sources = Sources(
                settings.sources.concurrency,
                failures=settings.sources.failures_to_open_circuit,
                circuit_open_s=settings.sources.circuit_open_s,
            )
        if beside is not None and same("decoder", "sources.maximum_bytes"):
            self.decoders = beside.decoders
        else:
            self.decoders = DecoderPool(_decoder_options(settings), observe=observe, precedence=self._precedence)
        if models is not None and beside is not None and beside.models is models:
            self.model, self._local, self.shadow = beside.model, beside._local, beside.shadow
        elif models is not None:
            options = _model_options(settings.tensorflow, models)
            self.model = ModelPool(
                options, observe=observe, on_batch=metrics.children.on_batch, precedence=self._precedence
            )
            self._local = TensorFlow(models, self.model, settings.tensorflow.calibration)
            if settings.tensorflow.shadow is not None:
                self.shadow = Shadow(
                    settings.tensorflow,
                    settings.cache_dir,
                    models,
                    self.model,
                    metrics.shadow,
                    uncounted(),
                    metrics.children.on_notice,
                )
        # Each that goes on keeps its pauses, circuits and paid answers, also where another is switched on or off.
        reuse = beside._others if beside is not None and same("cloud", "models") else ()
        self._others = tuple(make_enabled(settings, metrics.cloud, reuse))
        local: tuple[Provider, ...] = () if self._local is None else (self._local,)
        self.providers: tuple[Provider, ...] = (*local, *self._others)
        self.memory: NearDuplicates
        if beside is not None and same("near_duplicates"):
            self.memory = beside.memory
        else:
            self.memory = NearDuplicates(settings.near_duplicates.remember)
        self.tagger = Tagger(self.decoders, self.providers, metrics, self.memory)
        self._owned = [each for each in self._parts if beside is None or each not in beside._parts]

    @property
    def _parts(self) -> tuple[_Part, ...]:
        shadow = () if self.shadow is None else (self.shadow,)
        return (*shadow, *self.providers, self.decoders, self.sources)

    @property
    def _own_pools(self) -> list[Pool]:
        pools: list[Pool] = [self.decoders] if self.decoders in self._owned else []
        if self.model is not None and self._local in self._owned:
            pools.append(self.model)
        return pools

    def models_for(self, settings: Settings) -> LocalModels | None:
        """Those of its models that may go on under other settings; None where they need others, or none."""
        same = _unchanged(self._settings, settings, "tensorflow")
        same = same and wants_all_kinds(self._settings) == wants_all_kinds(settings)
        return self.models if same and wants_model(settings) else None

    async def start(self) -> None:
        """Launch the children. Images wait until they are ready."""
        for part in self._owned:
            await part.start()

    async def wait_ready(self) -> None:
        """Return when the children that are its own have said hello. Raises Unavailable with the reason why one cannot.

        The children that it uses of another engine are as they are: the model may have been disabled.
        """
        for pool in self._own_pools:
            await pool.wait_started()

    def take_over(self) -> None:
        """Become the engine that is in force: own the parts of the other one that it uses."""
        if self._beside is not None:
            for part in self._parts:
                if part in self._beside._owned:
                    self._beside._owned.remove(part)
                    self._owned.append(part)
            self._beside = None
        if self.model is not None and self.models is not None:
            self.model.others_at_work = lambda: self.decoders.at_work
            self._metrics.use_model(self.models.name, self.models.identity)

    async def close(self) -> None:
        """End the children and connections that are its own, and wait for their end."""
        ends = await asyncio.gather(*(part.close() for part in self._owned), return_exceptions=True)
        for error in ends:
            if error is not None:
                raise error

    async def kill(self) -> None:
        """End the children at once, whatever they are doing; a `close` under way then has nothing to wait for."""
        await asyncio.gather(*(pool.close(at_once=True) for pool in self._own_pools))

    def reset(self) -> None:
        """Forget the crashes, and launch what had been disabled."""
        self.decoders.reset()
        if self.model is not None:
            self.model.reset()
        if self.shadow is not None:
            self.shadow.reset()


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
    def waits_for_a_switch(self) -> bool:
        """Whether events wait because nothing is switched on that could tag any."""
        waits = self.settings.while_nothing_is_switched_on == "wait"
        return waits and nothing_is_switched_on(self.settings, self.engine.providers)

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
    settings: Settings,
    metrics: Metrics,
    observe: Observer = _ignore,
    progress: ProgressCallback = ignore_progress,
    beside: Engine | None = None,
) -> Engine:
    """A started engine; the model is built first if it has to be. Raises Misconfigured.

    `beside` is the engine in force, if there is one: the new one takes over only when its children have said hello.
    Raises Unavailable with the reason when they do not within their start timeouts; the other then stays as it is.
    """
    models = beside.models_for(settings) if beside is not None else None
    if models is None and wants_model(settings):
        ensure = partial(ensure_models, all_kinds=wants_all_kinds(settings))
        models = await asyncio.to_thread(ensure, settings.tensorflow.names, settings.cache_dir, progress)
    engine = Engine(settings, models, metrics, observe, beside)
    try:
        await engine.start()
        if beside is not None:
            await engine.wait_ready()
    except BaseException:
        await engine.kill()
        with suppress(Exception):  # why it cannot be opened matters more than how it ends
            await engine.close()
        raise
    engine.take_over()
    return engine


def _unchanged(old: Settings | None, new: Settings, *names: str) -> bool:
    """Whether these settings are the same."""
    return old is not None and all(attrgetter(name)(old) == attrgetter(name)(new) for name in names)


def needs_new_engine(old: Settings, new: Settings) -> bool:
    """Whether a change of settings touches anything that an engine is built from."""
    return (
        wants_model(old) != wants_model(new)
        or enabled_names(old) != enabled_names(new)
        or wants_all_kinds(old) != wants_all_kinds(new)
        or any(getattr(old, section) != getattr(new, section) for section in BUILT_FROM)
    )


def wants_model(settings: Settings) -> bool:
    """Whether any instance has switched the local model on."""
    return any(each.tensorflow.enabled for each in settings.reachable().values())


def wants_all_kinds(settings: Settings) -> bool:
    """Whether any instance has tags that models of other kinds than classifiers take part in."""
    return any(each.tensorflow.enabled and each.tensorflow.tags == "concepts" for each in settings.reachable().values())


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


def tasks_for(settings: Settings) -> Tasks:
    """The processes and threads that an engine for these settings needs, and those that there may be."""
    model_threads = (settings.tensorflow.threads or usable_cores()) if wants_model(settings) else None
    return tasks(decoder_memory_for(settings).children, model_threads)


def require_tasks(settings: Settings) -> None:
    """Raise Misconfigured where there may not be as many processes and threads as an engine needs.

    To be called before any thread is started: one that cannot be fails with an error that explains less.
    """
    if (too_few := tasks_for(settings).message) is not None:
        raise Misconfigured(too_few, reason=TOO_FEW_TASKS)


def decoder_memory_for(settings: Settings) -> DecoderMemory:
    """How many decoders an engine for these settings has, and what memory they need."""
    return decoder_memory(settings.decoder.children, settings.decoder.maximum_pixels)


def _decoder_options(settings: Settings) -> DecoderOptions:
    decoder: DecoderSettings = settings.decoder
    return DecoderOptions(
        children=decoder_memory_for(settings).children,
        timeout_s=decoder.timeout_s,
        maximum_pixels=decoder.maximum_pixels,
        maximum_bytes=settings.sources.maximum_bytes,
        maximum_memory_bytes=decoder.maximum_memory_bytes,
        maximum_cpu_s=decoder.maximum_cpu_s,
        first_cpu_s=min(decoder.first_cpu_s, decoder.maximum_cpu_s),
        shared_memory_bytes=lambda: decoder_memory_for(settings).shared_bytes,
        images_per_child=decoder.images_per_child,
        sandbox=decoder.sandbox,
    )


def _model_options(tensorflow: TensorFlowSettings, models: LocalModels) -> ModelOptions:
    return ModelOptions(
        packages=tuple(package.directory for package in models.packages),
        threads=tensorflow.threads or usable_cores(),
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
        sandbox=tensorflow.sandbox,
    )

"""The shadow: a candidate model tags a share of the images once more, and what would change is counted.

Nothing is published, and no event waits: an image is offered when its event has been tagged. The candidate runs in a
child of its own with one thread and low priority, whose crashes count for nothing else. Which images are of the share
is decided by their digests, so that another run compares the same ones. The digest is known only once an image has been
decoded, so it is decoded a second time, as bulk work: to ask every decode for the candidate's square too would cost
every image something, and the events that wait for it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from worker.errors import AutotagError, Misconfigured, Unavailable
from worker.images.content import Content
from worker.models.build import ensure_model
from worker.models.manifest import ModelPackage
from worker.models.selection import LocalModels, in_order
from worker.models.staging import ModelProgress
from worker.operations.health.shadow_report import ChangedImage, ChangedTag, ShadowReport
from worker.operations.history.comparisons import Comparisons, TermCount, compare
from worker.operations.history.results import Thumbnail
from worker.operations.metrics import EventMetrics
from worker.operations.metrics.shadow import ShadowMetrics
from worker.providers.base import TENSORFLOW
from worker.providers.replies import ProviderReplies
from worker.providers.tensorflow import TensorFlow
from worker.settings import InstanceSettings, TensorFlowSettings
from worker.supervision.decoder_pool import DecoderPool
from worker.supervision.model_pool import ModelOptions, ModelPool
from worker.supervision.pool import Observer
from worker.tagging.results import Subject
from worker.tagging.tagger import Tagged, Tagger, conclude

_log = structlog.get_logger(__name__)

MOST_PENDING = 4
"""Images that are being compared at once; while there are as many, others of the share are skipped."""

_MOST_PENDING_BYTES = 32 << 20
_WITHIN_S = 60.0
_NICE = 15
_MOST_EXAMPLES = 10


class Shadow:
    """One candidate beside the models in use. Where it cannot run, the report says why, and nothing else changes."""

    def __init__(
        self,
        settings: TensorFlowSettings,
        cache_dir: Path,
        models: LocalModels,
        real: ModelPool,
        metrics: ShadowMetrics,
        uncounted: EventMetrics,
        observe: Observer,
    ) -> None:
        """`uncounted` takes what a tagger measures, for nobody."""
        self._settings = settings
        self._cache_dir = cache_dir
        self._models = models
        self._real = real
        self._metrics = metrics
        self._uncounted = uncounted
        self._observe = observe
        self._provider: TensorFlow | None = None
        self._opening: asyncio.Task[None] | None = None
        self._why_not = "it is being made ready"
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_bytes = 0
        self.pool: ModelPool | None = None
        """The candidate's child; None until its model is there."""
        self.comparisons = Comparisons()

    @property
    def model(self) -> str:
        """Of the candidate, as the settings name it."""
        return self._settings.shadow or ""

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Launch the candidate, once its model is there. Returns at once."""
        self._opening = asyncio.create_task(self._open(), name="open the shadow")

    async def close(self) -> None:
        """End the candidate at once: nobody waits for it."""
        self._closed = True
        tasks = [*self._tasks, *([self._opening] if self._opening is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self.pool is not None:
            await self.pool.close(at_once=True)

    def reset(self) -> None:
        """Forget the candidate's crashes."""
        if self.pool is not None:
            self.pool.reset()

    async def _open(self) -> None:
        try:
            package = await asyncio.to_thread(ensure_model, self.model, self._cache_dir, self._on_progress)
            models = replaced(self._models, package)
            pool = ModelPool(_options(self._settings, models), observe=self._observe, name="shadow", nice=_NICE)
            provider = await asyncio.to_thread(partial(TensorFlow, models, pool, self._settings.calibration))
        except AutotagError as error:
            self._why_not = str(error)
            _log.error("the shadow cannot run", model=self.model, reason=error.reason, error=str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a candidate, events go on
            self._why_not = f"unexpected {type(error).__name__}: {error}"
            _log.exception("the shadow cannot run", model=self.model)
            return
        self.pool, self._provider = pool, provider
        await pool.start()
        _log.info("a candidate runs beside the models in use", model=models.name, share=self._settings.shadow_share)

    def _on_progress(self, _progress: ModelProgress) -> None:
        """Called by the thread that has the model built."""
        if self._closed:
            raise Unavailable("the shadow is being closed", reason="stopping")

    # ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def offer(
        self,
        subject: Subject,
        content: Content,
        instance: InstanceSettings,
        tagged: Tagged,
        maximum_number_of_tags: int,
        decoders: DecoderPool,
        thumbnail: Thumbnail | None,
    ) -> None:
        """Have an image compared that has been tagged, if it is of the share and there is room. Never raises."""
        reply, facts = tagged.replies.of(TENSORFLOW), tagged.replies.facts
        if reply is None or reply.status != "ok" or facts is None or not of_share(facts.sha256, self._share):
            return
        if self._provider is None or self.pool is None or not self.pool.ready:
            self._skip("not_ready")
            return
        if len(self._tasks) >= MOST_PENDING or self._pending_bytes + content.size_bytes > _MOST_PENDING_BYTES:
            self._skip("busy")
            return
        try:
            copy = content.duplicate()
        except OSError:  # no descriptor left: events need them more
            self._skip("busy")
            return
        tagger = Tagger(decoders, (self._provider,), self._uncounted)
        bulk = replace(subject, bulk=True)
        real = conclude(subject, ProviderReplies((reply,), facts), instance, maximum_number_of_tags)
        work = self._compare(tagger, bulk, copy, instance, real, maximum_number_of_tags, thumbnail)
        task = asyncio.create_task(work, name="shadow")
        self._tasks.add(task)
        self._pending_bytes += copy.size_bytes

        def on_done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._pending_bytes -= copy.size_bytes
            copy.close()

        task.add_done_callback(on_done)

    async def _compare(
        self,
        tagger: Tagger,
        subject: Subject,
        content: Content,
        instance: InstanceSettings,
        real: Tagged,
        maximum_number_of_tags: int,
        thumbnail: Thumbnail | None,
    ) -> None:
        try:
            async with asyncio.timeout(_WITHIN_S):
                found = await tagger.tag(subject, content, instance, maximum_number_of_tags=maximum_number_of_tags)
        except TimeoutError:
            self._skip("late")
            return
        except Exception as error:  # noqa: BLE001 - whatever a candidate does, it is counted and events go on
            log = _log.debug if isinstance(error, AutotagError) else _log.exception
            log("the candidate could not tag an image", asset_id=subject.asset_id, error=str(error))
            self._skip("failed")
            return
        if not found.replies.answered:
            self._skip("failed")
            return
        comparison = compare(subject.asset_id, subject.instance, real.result.tags, found.result.tags, thumbnail)
        self.comparisons.add(comparison)
        self._metrics.compared(comparison)

    @property
    def _share(self) -> float:
        return self._settings.shadow_share

    def _skip(self, reason: str) -> None:
        self.comparisons.skip(reason)
        self._metrics.skipped(reason)

    # ── what has been found ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> str:
        """Whether the candidate runs, and if not why, for people."""
        if self.pool is None:
            return self._why_not
        if self.pool.disabled_reason is not None:
            return f"disabled: {self.pool.disabled_reason}"
        return "ready" if self.pool.ready else "starting"

    def report(self) -> ShadowReport:
        """What would change."""
        found = self.comparisons
        return ShadowReport(
            model=self.model,
            state=self.state,
            share=self._share,
            compared=found.compared,
            alike=found.alike,
            skipped=dict(found.skipped),
            added=[_changed(term, term.added) for term in found.most("added")],
            removed=[_changed(term, term.removed) for term in found.most("removed")],
            mean_change=found.mean_change,
            real_cpu_ms=_cpu_ms(self._real),
            candidate_cpu_ms=_cpu_ms(self.pool),
            examples=[
                ChangedImage(each.asset_id, each.instance, list(each.added), list(each.removed))
                for each, _ in zip(found.examples(), range(_MOST_EXAMPLES), strict=False)
            ],
        )


def of_share(sha256: str, share: float) -> bool:
    """Whether an image belongs to a share from 0 to 1, by its digest."""
    return int(sha256[:8], 16) < share * (1 << 32)


def replaced(models: LocalModels, candidate: ModelPackage) -> LocalModels:
    """The models as they would be: the candidate in place of those of its kind.

    One that reads the features of a model that is gone is left out. Raises Misconfigured where there is nothing to
    compare, because the candidate is in use already.
    """
    manifest = candidate.manifest
    if any(package.identity == candidate.identity for package in models.packages):
        raise Misconfigured(f"{manifest.name} is in use already: there is nothing to compare", reason="shadow_in_use")
    others = [package for package in models.packages if package.manifest.kind is not manifest.kind]
    names = {manifest.name, *(package.manifest.name for package in others)}
    kept = [each for each in others if each.manifest.input.features in (None, *names)]
    for gone in (each for each in others if each not in kept):
        _log.warning("compared without a model that reads another's features", model=gone.manifest.name)
    return LocalModels(in_order([candidate, *kept]))


def _options(tensorflow: TensorFlowSettings, models: LocalModels) -> ModelOptions:
    return ModelOptions(
        packages=tuple(package.directory for package in models.packages),
        threads=1,
        batch_size=1,
        start_timeout_s=tensorflow.start_timeout_s,
        batch_timeout_s=tensorflow.batch_timeout_s,
        stop_timeout_s=tensorflow.stop_timeout_s,
        sandbox=tensorflow.sandbox,
    )


def _cpu_ms(pool: ModelPool | None) -> float | None:
    """Mean processor time of an image so far, in milliseconds."""
    return 1000 * pool.processor_time.per_image_s or None if pool is not None else None


def _changed(term: TermCount, times: int) -> ChangedTag:
    return ChangedTag(term.name, times, term.same)

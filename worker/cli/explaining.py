"""Image files tagged by a command, without a broker: the settings for it, the engine, and each file's explanation."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from worker.messages.fields import MAXIMUM_ID_CHARACTERS
from worker.operations.printable import printable

if TYPE_CHECKING:
    from worker.engine import Engine
    from worker.images.content import Content
    from worker.settings import Settings
    from worker.tagging.explain import Explanation

_T = TypeVar("_T")

CONCURRENCY = 16
"""Files that are tagged at the same time: enough to keep decoders and model busy."""


def settings_for(
    settings: Settings, instance: str, model: str | None, threshold: float | None, language: str | None = None
) -> Settings:
    """The settings with the options applied; if no provider is on, the local model is switched on."""
    from worker.providers.registry import make_enabled

    configured = settings.instance(instance) or settings.defaults
    providers_on = configured.tensorflow.enabled or any(each.enabled(configured) for each in make_enabled(settings))
    local: dict[str, Any] = {} if threshold is None else {"confidence_threshold": threshold}
    if not providers_on or model is not None:
        local["enabled"] = True
    changed = configured.model_copy(update={"tensorflow": configured.tensorflow.model_copy(update=local)})
    if language is not None:
        changed = changed.model_copy(update={"language": language})
    tensorflow = settings.tensorflow.model_copy(update={"model": model} if model else {})
    # With this one instance alone, the engine starts only what this command needs.
    return settings.model_copy(
        update={"instances": {instance: changed}, "defaults": changed, "tensorflow": tensorflow, "enabled": True}
    )


async def with_engine(settings: Settings, use: Callable[[Engine], Coroutine[Any, Any, _T]]) -> _T:
    """What `use` returns, given an engine of these settings. Raises Misconfigured when no child can start."""
    from worker.cli.progress import model_progress
    from worker.diagnostics.first_starts import FirstStarts
    from worker.engine import open_engine, require_tasks
    from worker.operations.metrics import Metrics

    require_tasks(settings)
    starts = FirstStarts()
    with model_progress(", ".join(settings.tensorflow.names)) as progress:
        engine = await open_engine(settings, Metrics(), starts.observe, progress)
    try:
        return await starts.while_one_can_start(use(engine))
    finally:
        await engine.close()


async def explained(
    engine: Engine,
    settings: Settings,
    instance: str,
    files: Iterable[Path],
    *,
    all_labels: bool,
    local_only: bool = False,
    remembering: bool = False,
) -> AsyncIterator[tuple[Path, Explanation]]:
    """Each file with its explanation, in the order of the files; `CONCURRENCY` of them are tagged at once."""
    tag_one = partial(
        _tag_one,
        engine,
        settings,
        instance,
        all_labels=all_labels,
        local_only=local_only,
        remembering=remembering,
    )
    begun: deque[tuple[Path, asyncio.Task[Explanation]]] = deque()
    try:
        for file in files:
            begun.append((file, asyncio.create_task(tag_one(file))))
            if len(begun) == CONCURRENCY:
                yield begun[0][0], await begun[0][1]
                begun.popleft()
        while begun:
            yield begun[0][0], await begun[0][1]
            begun.popleft()
    finally:
        for _, task in begun:
            task.cancel()


async def _tag_one(
    engine: Engine,
    settings: Settings,
    instance: str,
    file: Path,
    *,
    all_labels: bool,
    local_only: bool,
    remembering: bool,
) -> Explanation:
    from worker.errors import AutotagError, CannotBeDone
    from worker.tagging.explain import explain, failure

    # A name can be bytes that are no text, longer than an id, or hold what a terminal obeys.
    name = printable(str(file), maximum=MAXIMUM_ID_CHARACTERS)
    started_s = time.monotonic()
    try:
        with await asyncio.to_thread(_open, file, settings) as content:
            return await explain(
                engine.tagger,
                settings,
                content,
                asset_id=name,
                event_id=name,
                instance=instance,
                all_labels=all_labels,
                local_only=local_only,
                remembering=remembering,
            )
    except AutotagError as error:
        why = error
    except Exception as error:  # noqa: BLE001 - one odd file must not stop the others
        why = CannotBeDone(f"unexpected {type(error).__name__}: {error}", reason="internal_error")
    took_s = time.monotonic() - started_s
    return failure(why, asset_id=name, event_id=name, instance=instance, took_s=took_s)


def _open(file: Path, settings: Settings) -> Content:
    """Open a file named on the command line. `sources.path_roots` limits events, not what a user may read."""
    from worker.sources.path import open_path

    return open_path(os.path.abspath(file), settings.sources.model_copy(update={"path_roots": (Path("/"),)}))

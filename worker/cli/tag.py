"""`autotag tag`: tags image files directly, without a broker."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.image_files import ImageFiles
from worker.cli.output import print_error, print_json, print_line, print_note
from worker.messages import DEFAULT_INSTANCE
from worker.messages.fields import MAXIMUM_ID_CHARACTERS
from worker.operations.printable import printable

if TYPE_CHECKING:
    from worker.engine import Engine
    from worker.images.content import Content
    from worker.settings import Settings
    from worker.tagging.explain import Explanation

CONCURRENCY = 16
"""Files that are tagged at the same time: enough to keep decoders and model busy."""


def tag(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(help="Image files, and folders of them.", metavar="FILES…", show_default=False)
    ],
    instance: Annotated[str, typer.Option(help="Whose settings apply.", metavar="NAME")] = DEFAULT_INSTANCE,
    model: Annotated[
        str | None,
        typer.Option(help="Another model than the settings name: one of `autotag model list`, or a directory."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Another confidence threshold for the local model.")
    ] = None,
    explain: Annotated[bool, typer.Option(help="Show what became of every label the model considered.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line: a result's `data`, and `file`.")
    ] = False,
) -> None:
    """Tag image files. Needs no broker; asks the providers that the instance has on, or else the local model.

    Of a folder, every image below it is tagged.

    Ends with status 1 if a file could not be tagged, and prints which and why.
    """
    from worker.diagnostics.first_starts import REASON
    from worker.errors import Misconfigured
    from worker.operations import logs
    from worker.supervision.tasks import TOO_FEW_TASKS

    logs.configure("warning", "console")
    loaded = CliContext.of(context).load().settings
    try:
        settings = _settings_for(loaded, instance, model, threshold)
        found = ImageFiles(print_note)
        named = list(found.named(files))
        if not named:
            print_note("no image is there")
            raise typer.Exit(ExitCode.FAILED)
        failed = asyncio.run(_tag_all(settings, instance, named, explain=explain, as_json=as_json))
        failed += found.unreadable
    except Misconfigured as error:
        print_error(error)
        raise typer.Exit(ExitCode.FAILED if error.reason in (REASON, TOO_FEW_TASKS) else ExitCode.MODEL) from None
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _settings_for(settings: Settings, instance: str, model: str | None, threshold: float | None) -> Settings:
    """The settings with the options applied; if no provider is on, the local model is switched on."""
    from worker.providers.registry import make_enabled

    configured = settings.instance(instance) or settings.defaults
    providers_on = configured.tensorflow.enabled or any(each.enabled(configured) for each in make_enabled(settings))
    local: dict[str, Any] = {} if threshold is None else {"confidence_threshold": threshold}
    if not providers_on or model is not None:
        local["enabled"] = True
    changed = configured.model_copy(update={"tensorflow": configured.tensorflow.model_copy(update=local)})
    tensorflow = settings.tensorflow.model_copy(update={"model": model} if model else {})
    # With this one instance alone, the engine starts only what this command needs.
    return settings.model_copy(
        update={"instances": {instance: changed}, "defaults": changed, "tensorflow": tensorflow, "enabled": True}
    )


async def _tag_all(settings: Settings, instance: str, files: list[Path], *, explain: bool, as_json: bool) -> int:
    from worker.cli.progress import model_progress
    from worker.diagnostics.first_starts import FirstStarts
    from worker.engine import open_engine, require_tasks
    from worker.operations.metrics import Metrics

    require_tasks(settings)
    starts = FirstStarts()
    with model_progress(settings.tensorflow.model) as progress:
        engine = await open_engine(settings, Metrics(), starts.observe, progress)
    try:
        showing = _show_all(engine, settings, instance, files, explain=explain, as_json=as_json)
        return await starts.while_one_can_start(showing)
    finally:
        await engine.close()


async def _show_all(
    engine: Engine, settings: Settings, instance: str, files: list[Path], *, explain: bool, as_json: bool
) -> int:
    """Print what became of each file, and return how many could not be tagged."""
    show = _show_json if as_json else _show
    failed = 0
    async for file, explanation in _in_order(engine, settings, instance, files, explain):
        show(file, explanation, explain)
        failed += explanation.result.status == "failed"
    return failed


async def _in_order(
    engine: Engine, settings: Settings, instance: str, files: list[Path], explain: bool
) -> AsyncIterator[tuple[str, Explanation]]:
    """Each file with its explanation, in the order of the files; `CONCURRENCY` of them are tagged at once."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def tag_in_slot(file: Path) -> tuple[str, Explanation]:
        async with slots:
            return str(file), await _tag_one(engine, settings, instance, file, explain)

    tasks = [asyncio.create_task(tag_in_slot(file)) for file in files]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()


async def _tag_one(engine: Engine, settings: Settings, instance: str, file: Path, all_labels: bool) -> Explanation:
    from worker.errors import AutotagError, CannotBeDone
    from worker.tagging.explain import explain, failure

    # A name can be bytes that are no text, longer than an id, or hold what a terminal obeys.
    name = printable(str(file), maximum=MAXIMUM_ID_CHARACTERS)
    started_s = time.monotonic()
    try:
        with await asyncio.to_thread(_open, file, settings) as content:
            return await explain(
                engine.tagger, settings, content, asset_id=name, event_id=name, instance=instance, all_labels=all_labels
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


def _show_json(file: str, explanation: Explanation, explain: bool) -> None:
    from worker.messages import result_data

    line = {"file": file} | result_data(explanation.result)
    if explain:
        line["explained"] = explanation.choices_as_json()
    print_json(line)


def _show(file: str, explanation: Explanation, explain: bool) -> None:
    result = explanation.result
    if result.status == "failed":
        print_note(f"{file}: {result.message}")
        return
    tags = ", ".join(f"{each.name} {each.confidence:.0%}" for each in result.tags)
    print_line(f"{file}: {tags or 'no tag (nothing was sure enough)'}")
    if explain:
        for each in explanation.choices:
            print_line(f"    {each.confidence:6.1%}  {each.label}  ->  {each.name}  [{each.provider}] {each.verdict}")

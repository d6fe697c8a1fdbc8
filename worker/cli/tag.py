"""`autotag tag`: the tags of files, at once and without a broker."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from worker.images.content import Content
    from worker.tagging.merge import Choice
    from worker.messages import Result
    from worker.settings import InstanceSettings, Settings
    from worker.engine import Workshop

AT_ONCE = 16
"""Files in hand at the same time: enough to keep decoders and model busy."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """One file's result, every suggestion with its verdict, and how long it took."""

    file: str
    result: Result
    choices: list[Choice]
    took_s: float


def tag(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Image files.", metavar="FILES…", show_default=False)],
    instance: Annotated[str, typer.Option(help="Whose settings apply.", metavar="NAME")] = "default",
    model: Annotated[
        str | None,
        typer.Option(help="Another model than the settings name: one of `autotag model list`, or a directory."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Another confidence threshold for the local model.")
    ] = None,
    explain: Annotated[bool, typer.Option(help="Show what became of every label the model thought of.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: a result's `data`, and `file`.")
    ] = False,
) -> None:
    """Tag image files. Needs no broker; asks the providers that the instance has on, or else the local model.

    Ends with status 1 if a file could not be tagged, and says which and why.
    """
    from worker.operations import logs
    from worker.errors import Misconfigured

    logs.configure("warning", "console")
    loaded = CliContext.of(context).load().settings
    try:
        settings = _settings_for(loaded, instance, model, threshold)
        failed = asyncio.run(_tag_all(settings, instance, files, explain=explain, as_json=as_json))
    except Misconfigured as error:
        print(f"autotag: {error}", file=sys.stderr)
        raise typer.Exit(ExitCode.MODEL) from None
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _settings_for(settings: Settings, instance: str, model: str | None, threshold: float | None) -> Settings:
    """The settings as the options change them: with no provider on, the local model is."""
    from worker.providers.registry import make_wanted

    found = settings.instance(instance) or settings.defaults
    nothing_on = not (found.tensorflow.enabled or any(each.enabled(found) for each in make_wanted(settings)))
    local: dict[str, Any] = {} if threshold is None else {"confidence_threshold": threshold}
    if nothing_on or model is not None:
        local["enabled"] = True
    changed = found.model_copy(update={"tensorflow": found.tensorflow.model_copy(update=local)})
    tensorflow = settings.tensorflow.model_copy(update={"model": model} if model else {})
    # Only what this command needs is built: the settings hold one instance, under the name it was asked for.
    return settings.model_copy(
        update={"instances": {instance: changed}, "defaults": changed, "tensorflow": tensorflow, "enabled": True}
    )


async def _tag_all(settings: Settings, instance: str, files: list[Path], *, explain: bool, as_json: bool) -> int:
    from worker.cli.progress import model_progress
    from worker.operations.metrics import Metrics
    from worker.engine import open_workshop

    with model_progress(settings.tensorflow.model) as progress:
        workshop = await open_workshop(settings, Metrics(), progress=progress)
    failed = 0
    try:
        show = _show_json if as_json else _show
        async for tagged in _in_order(workshop, settings, instance, files, explain):
            show(tagged, explain)
            failed += tagged.result.status == "failed"
    finally:
        await workshop.close()
    return failed


async def _in_order(
    workshop: Workshop, settings: Settings, instance: str, files: list[Path], explain: bool
) -> AsyncIterator[Tagged]:
    """Results in the order of the files, a few of which are in hand at once."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(file: Path) -> Tagged:
        async with room:
            return await _tag_one(workshop, settings, instance, file, explain)

    tasks = [asyncio.create_task(one(file)) for file in files]
    for task in tasks:
        yield await task


async def _tag_one(workshop: Workshop, settings: Settings, name: str, file: Path, explain: bool) -> Tagged:
    from worker.tagging import tagger
    from worker.errors import AutotagError
    from worker.messages import EVENT_TYPE, IN_THE_BODY, Event, EventData

    instance: InstanceSettings = settings.instances[name]
    asked_as = tagger.curious(instance) if explain else instance
    started_s = time.monotonic()
    event = Event(
        specversion="1.0",
        id=str(file),
        source="autotag tag",
        type=EVENT_TYPE,
        data=EventData.model_construct(asset_id=str(file), instance=name, content=IN_THE_BODY, file_name=file.name),
    )

    async def tell(_so_far: tagger.Findings) -> None:
        """A person at a terminal waits for the whole answer."""

    choices: list[Choice] = []
    try:
        with await asyncio.to_thread(_open, file, settings) as content:
            findings = await workshop.tagger.look(event, content, asked_as, earlier={}, tell=tell)
        result = tagger.tagged(event, findings.without_hope(), instance, settings)
        choices = tagger.judge(event, findings, instance, settings)
    except AutotagError as error:
        result = tagger.failed(event, error)
    return Tagged(str(file), result, choices, time.monotonic() - started_s)


def _open(file: Path, settings: Settings) -> Content:
    """Open a file that a person named: they may read what they may read, so the roots, which bound events, do not."""
    from worker.sources.path import open_path

    return open_path(os.path.abspath(file), settings.sources.model_copy(update={"path_roots": (Path("/"),)}))


def _show_json(tagged: Tagged, explain: bool) -> None:
    from worker.messages import result_data

    line = {"file": tagged.file} | result_data(tagged.result)
    if explain:
        line["explained"] = [
            {
                "label": each.label,
                "tag": each.name,
                "confidence": each.confidence,
                "provider": each.provider,
                "verdict": each.verdict,
            }
            for each in tagged.choices
        ]
    print(json.dumps(line, ensure_ascii=False), flush=True)


def _show(tagged: Tagged, explain: bool) -> None:
    result = tagged.result
    if result.status == "failed":
        print(f"{tagged.file}: {result.message}", file=sys.stderr)
        return
    tags = ", ".join(f"{each.name} {each.confidence:.0%}" for each in result.tags)
    print(f"{tagged.file}: {tags or 'no tag (nothing was sure enough)'}", flush=True)
    if explain:
        for each in tagged.choices:
            print(f"    {each.confidence:6.1%}  {each.label}  ->  {each.name}  [{each.provider}] {each.verdict}")

"""`autotag tag`: tags image files directly, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.explaining import explained, settings_for, with_engine
from worker.cli.image_files import ImageFiles
from worker.cli.output import print_error, print_json, print_line, print_note
from worker.cli.switched_off import switched_off
from worker.messages import DEFAULT_INSTANCE

if TYPE_CHECKING:
    from worker.engine import Engine
    from worker.settings import Settings
    from worker.tagging.explain import Explanation
    from worker.tagging.merge import Choice


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
    language: Annotated[
        str | None, typer.Option(help="Language of the tags, such as fr, instead of the instance's.")
    ] = None,
    explain: Annotated[bool, typer.Option(help="Show what became of every label the model considered.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line: a result's `data`, and `file`.")
    ] = False,
) -> None:
    """Tag image files. Needs no broker; asks the providers that the instance has on, or else the local model.

    Of a folder, every image below it is tagged. What is switched off for events is named on standard error.

    Ends with status 1 if a file could not be tagged, and prints which and why.
    """
    from worker.diagnostics.first_starts import REASON
    from worker.errors import Misconfigured
    from worker.operations import logs
    from worker.supervision.tasks import TOO_FEW_TASKS
    from worker.vocabulary import languages

    if language is not None and language not in languages():
        raise typer.BadParameter(f"there are names in {', '.join(languages())}", param_hint="--language")
    logs.configure("warning", "console")
    loaded = CliContext.of(context).load().settings
    try:
        for line in switched_off(loaded, instance, model=model, threshold=threshold):
            print_note(line)
        settings = settings_for(loaded, instance, model, threshold, language)
        found = ImageFiles(print_note)
        named = list(found.named(files))
        if not named:
            print_note("no image is there")
            raise typer.Exit(ExitCode.FAILED)

        def show(engine: Engine) -> Coroutine[Any, Any, int]:
            return _show_all(engine, settings, instance, named, explain=explain, as_json=as_json)

        failed = asyncio.run(with_engine(settings, show))
        failed += found.unreadable
    except Misconfigured as error:
        print_error(error)
        raise typer.Exit(ExitCode.FAILED if error.reason in (REASON, TOO_FEW_TASKS) else ExitCode.MODEL) from None
    if failed:
        raise typer.Exit(ExitCode.FAILED)


async def _show_all(
    engine: Engine, settings: Settings, instance: str, files: list[Path], *, explain: bool, as_json: bool
) -> int:
    """Print what became of each file, and return how many could not be tagged."""
    show = _show_json if as_json else _show
    failed = 0
    async for file, explanation in explained(engine, settings, instance, files, all_labels=explain, remembering=True):
        show(str(file), explanation, explain)
        failed += explanation.result.status == "failed"
    return failed


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
        for report in result.providers:
            if report.near_duplicate_of is not None:
                differing = f"{report.distance} of 64 bits differ"
                print_line(f"    [{report.name}] as of {report.near_duplicate_of}, which looks the same ({differing})")
        for each in explanation.choices:
            print_line(f"    {_way(each)}")


def _way(each: Choice) -> str:
    """One label's way to a tag, or to the reason why it is none, on a line."""
    by_rule = " by a rule" if each.threshold_of_rule else ""
    needed = f" (from {each.threshold:.0%}{by_rule})" if each.threshold is not None else ""
    label = f"{each.label} ({each.kind})" if each.kind != "label" else each.label
    if each.meant is not None:
        label += f" = {each.meant}"
    if each.because_of is not None:
        label += f", by a rule for {each.because_of}"
    term = f", for the term {each.term}" if each.term is not None else ""
    agreeing = f"; so says {', '.join(each.agreeing)}" if each.agreeing else ""
    agreeing += f"; by {' and '.join(each.models)}" if len(each.models) > 1 else ""
    return f"{each.confidence:6.1%}{needed}  {label}  ->  {each.name}{term}  [{each.provider}] {each.verdict}{agreeing}"

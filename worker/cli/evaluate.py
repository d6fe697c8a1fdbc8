"""`autotag evaluate`: how good the tags are on photographs that people have labelled."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.explaining import settings_for
from worker.cli.labelled_photographs import FolderOption, LabelledArgument, checked_or_exit, run_or_exit, tagged
from worker.cli.output import print_error, print_json, print_line
from worker.messages import DEFAULT_INSTANCE

if TYPE_CHECKING:
    from worker.diagnostics.evaluation import Evaluation
    from worker.diagnostics.labelled import LabelledFile
    from worker.engine import Engine
    from worker.settings import Settings

WORST_SHOWN = 15
_BAR = 30


def evaluate(
    context: typer.Context,
    labelled: LabelledArgument,
    folder: FolderOption = None,
    instance: Annotated[str, typer.Option(help="Whose settings apply.", metavar="NAME")] = DEFAULT_INSTANCE,
    model: Annotated[str | None, typer.Option(help="Another model than the settings name.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw confidences and what is true of them.", metavar="FILE.svg")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Tag labelled photographs, and say how many of the tags are true, by provider, model and tag, with intervals.

    A label is a name in any language there are names in, WordNet's id, or a concept's; several in a cell are separated
    by `|`. A tag is true if it is one of them or a broader term of one. In rows without a label only tags are judged
    that people kept, added or removed. Nothing is published; every provider that is on is asked.

    Ends with status 1 if a file could not be tagged.
    """
    from worker.diagnostics.calibration_file import why_not_writable, write
    from worker.errors import Misconfigured
    from worker.operations import logs

    logs.configure("error", "console")
    loaded = CliContext.of(context).load().settings
    if plot is not None:
        # A slip of the finger must not overwrite the labels themselves.
        why_not = why_not_writable(plot, force=True) if plot.suffix.lower() == ".svg" else f"{plot} is no name.svg"
        if why_not:
            print_error(why_not)
            raise typer.Exit(ExitCode.USAGE)
    file = checked_or_exit(labelled, folder)
    settings = settings_for(loaded, instance, model, None)

    def run(engine: Engine) -> Coroutine[Any, Any, Evaluation]:
        return _evaluate(engine, settings, instance, file)

    found = run_or_exit(settings, run)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)
    if plot is not None:
        try:
            write(plot, _plot(found, labelled), force=True)
        except Misconfigured as error:
            print_error(error)
            raise typer.Exit(ExitCode.FAILED) from None
    if found.failed:
        raise typer.Exit(ExitCode.FAILED)


async def _evaluate(engine: Engine, settings: Settings, instance: str, file: LabelledFile) -> Evaluation:
    from worker.diagnostics.evaluation import Evaluation

    found = Evaluation()
    async for labelled, explanation in tagged(engine, settings, instance, file):
        found.add(labelled, explanation.result)
    return found


def _plot(found: Evaluation, labelled: Path) -> str:
    from worker.diagnostics.reliability_plot import svg

    error = found.calibration_error
    known = f"calibration error {error:.3f}, {found.precision} true" if error is not None else "no tag to judge"
    return svg(
        found.reliability, f"Confidence and truth: {labelled.name}", f"{found.photographs:,} photographs; {known}"
    )


def _show(found: Evaluation) -> None:
    print_line(f"photographs          {found.photographs}" + (f", and {found.failed} failed" if found.failed else ""))
    print_line(f"tags that are true   {found.precision}")
    print_line(f"with a true tag      {found.coverage}")
    print_line(f"tags a photograph    {found.tags_a_photograph or 0:.2f}")
    print_line(f"without any          {found.untagged}")
    if found.not_judged:
        print_line(f"not known if true    {found.not_judged}")
    if found.calibration_error is not None:
        print_line(f"calibration error    {found.calibration_error:.3f}")
    if len(found.by_provider) > 1:
        for provider, share in found.by_provider.items():
            print_line(f"  {provider}: {share}")
    for model, share in found.by_model.items():
        print_line(f"  {model}: {share}")
    wrong = [(name, share) for name, share in found.by_tag.items() if share.true < share.number]
    if wrong:
        print_line("wrong most often")
        for name, share in wrong[:WORST_SHOWN]:
            print_line(f"  {name}: {share.number - share.true} of {share.number}")
    if found.precision.number:
        print_line("confidence, and the share that is true")
        for mean, share in found.reliability:
            true = share.value or 0.0
            print_line(f"  {mean:4.0%}  {true:4.0%}  {'█' * round(true * _BAR):{_BAR}}  {share.number} tags")

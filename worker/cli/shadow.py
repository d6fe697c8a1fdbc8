"""`autotag shadow report`: what would change with the model that `tensorflow.shadow` names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line

if TYPE_CHECKING:
    from worker.operations.health.shadow_report import ChangedTag, ShadowReport

app = typer.Typer(no_args_is_help=True, help="A candidate model beside the models in use.")


@app.callback()
def _shadow() -> None:
    """A candidate model beside the models in use."""


@app.command("report")
def report(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as one JSON object.")] = False,
) -> None:
    """Show what would change with the model of `tensorflow.shadow`, by the images that both have tagged.

    Ends with 1 where there is no such model, 3 if no service answers.
    """
    from worker.errors import TryLater
    from worker.operations.control import send_command
    from worker.operations.health.shadow_report import ShadowReport

    settings = CliContext.of(context).load().settings
    try:
        found = ShadowReport.from_json(asyncio.run(send_command(settings.control_socket, "shadow_report")))
    except TryLater as error:
        print_error(error)
        refused = error.reason == "command_failed"
        raise typer.Exit(ExitCode.FAILED if refused else ExitCode.UNREACHABLE) from None
    except ValueError:
        print_error("the service's report cannot be read; does it run another version of Autotag?")
        raise typer.Exit(ExitCode.FAILED) from None
    if as_json:
        print_json(found.to_json())
        return
    for line in lines(found):
        print_line(line)


def lines(found: ShadowReport) -> Iterable[str]:
    """The report for people."""
    yield f"candidate              {found.model}: {found.state}"
    skipped = ", ".join(f"{number} {reason}" for reason, number in sorted(found.skipped.items()))
    yield f"images compared        {found.compared} of a share of {found.share:g}; skipped: {skipped or 'none'}"
    if found.compared:
        yield f"with the same tags     {found.alike / found.compared:.0%} ({found.alike})"
    if found.mean_change is not None:
        yield f"change of confidence   {found.mean_change:+.3f} for tags that stay"
    if found.real_cpu_ms is not None and found.candidate_cpu_ms is not None:
        yield f"processor time         {found.candidate_cpu_ms:.1f} ms an image; now {found.real_cpu_ms:.1f} ms"
    for title, changed in (("added", found.added), ("removed", found.removed)):
        if changed:
            yield f"would be {title}"
            yield from map(_tag, changed)
    if found.examples:
        yield "for example"
    for each in found.examples:
        changes = [f"+{name} {value:.0%}" for name, value in each.added]
        changes += [f"-{name} {value:.0%}" for name, value in each.removed]
        yield f"    {each.asset_id} ({each.instance}): {', '.join(changes)}"


def _tag(changed: ChangedTag) -> str:
    return f"    {changed.times:>5}  {changed.name} (stays on {changed.same})"

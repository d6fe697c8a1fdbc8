"""`autotag check`: would the service run, and if not, what is to be done."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from worker.diagnostics.preflight import CheckResult
    from worker.settings import Settings

_EXIT = {"rabbitmq": ExitCode.UNREACHABLE, "model": ExitCode.MODEL}
_MARK = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "failed": "[red]✗[/red]"}


def check(
    context: typer.Context,
    instance: Annotated[
        str | None,
        typer.Option(help="Also make one cheap real call to each cloud provider this instance has on.", metavar="NAME"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Look at settings, sources, RabbitMQ, decoders and model, and say what is wrong and what to do.

    Declares the queues, as the service would. Ends with what the first failure stands for: 3 RabbitMQ, 4 the model,
    1 anything else.
    """
    from worker.operations import logs

    logs.configure("warning", "console")
    settings = CliContext.of(context).load().settings
    failed = asyncio.run(_check(settings, instance, as_json))
    if failed:
        raise typer.Exit(_EXIT.get(failed[0], ExitCode.FAILED))


async def _check(settings: Settings, instance: str | None, as_json: bool) -> list[str]:
    from rich.console import Console
    from rich.markup import escape

    from worker.diagnostics.preflight import check as look
    from worker.diagnostics.preflight import check_instance

    console = Console(soft_wrap=True)
    failed = []
    shown = set()

    def show(finding: CheckResult) -> None:
        if finding in shown:  # the call to a provider says again what its settings alone say
            return
        shown.add(finding)
        if finding.status == "failed":
            failed.append(finding.subject)
        if as_json:
            print(json.dumps({"subject": finding.subject, "status": finding.status, "message": finding.message}))
        else:
            console.print(f"{_MARK[finding.status]} {finding.subject:<19} {escape(finding.message)}", highlight=False)

    async for finding in look(settings):
        show(finding)
    if instance is not None:
        async for finding in check_instance(settings, instance):
            show(finding)
    return failed

"""`autotag check`: whether the service would run, and what to do if not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_json
from worker.operations.printable import printable

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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Check settings, sources, RabbitMQ, decoders and model, and print what is wrong and what to do.

    Declares the queues, like the service. The exit status stands for the first failure: 3 RabbitMQ, 4 the model,
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

    from worker.diagnostics.preflight import check_instance, check_service

    console = Console(soft_wrap=True)
    failed = []
    shown = set()

    def show(result: CheckResult) -> None:
        if result in shown:  # checking a provider with a call repeats what its settings alone show
            return
        shown.add(result)
        if result.status == "failed":
            failed.append(result.subject)
        if as_json:
            print_json({"subject": result.subject, "status": result.status, "message": result.message})
        else:
            text = escape(printable(f"{result.subject:<19} {result.message}"))
            console.print(f"{_MARK[result.status]} {text}", highlight=False)

    async for result in check_service(settings):
        show(result)
    if settings.connect:
        await _check_connections(settings, show)
    if instance is not None:
        async for result in check_instance(settings, instance):
            show(result)
    return failed


async def _check_connections(settings: Settings, show: Callable[[CheckResult], None]) -> None:
    """Read a page of each poller, ask each target something harmless and read one asset. Nothing is written."""
    from worker.cli.connect_targets import existing_ledger
    from worker.connect.inlet_checks import check_inlets
    from worker.connect.target_checks import check_targets
    from worker.diagnostics.preflight import CheckResult

    ledger = existing_ledger(settings)
    for found in [*await check_inlets(settings), *await check_targets(settings, ledger)]:
        show(
            CheckResult(f"connect.{found.connection}.{found.part}", "ok" if found.is_fine else "failed", found.message)
        )
    if ledger is not None:
        ledger.close()

"""`autotag chaos`: prove on a test broker that no event is lost, whatever is killed."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import cell, print_error, print_json, print_note
from worker.diagnostics.chaos.schedule import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.diagnostics.chaos.report import ChaosReport
    from worker.diagnostics.chaos.run import ChaosOptions, ChaosProgress


def chaos(
    context: typer.Context,
    photographs: Annotated[
        Path, typer.Argument(help="A directory of photographs.", exists=True, file_okay=False, resolve_path=True)
    ],
    amqp: Annotated[
        str | None, typer.Option(help="The test broker; `amqp.url` of the settings unless given.", metavar="URL")
    ] = None,
    events: Annotated[int, typer.Option(min=1, help="How many events to publish.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same faults.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=16, help="How many services share the work.")] = 2,
    google: Annotated[
        str | None,
        typer.Option(help="A stand-in for Google Cloud Vision, never the service itself.", metavar="URL"),
    ] = None,
    microsoft: Annotated[
        str | None,
        typer.Option(help="A stand-in for Microsoft's vision service, never the service itself.", metavar="URL"),
    ] = None,
    served: Annotated[
        str | None, typer.Option(help="Where the photographs can be fetched over HTTP.", metavar="URL")
    ] = None,
    leave_out: Annotated[
        list[FaultKind] | None, typer.Option(help="A kind of fault not to inject; may be given several times.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Kill services, their children and their connections at random under load, then judge the end of every event.

    Works in queues of its own, and takes them away at the end. Several tenants take part; cloud services and URLs only
    where the options name a stand-in, and the broker is not killed: a run without them is not complete, and only
    `make chaos`, with a broker of its own, is. The last lines are the verdict, with each reason. Ends with status 0
    only if every event ended once and as it had to, and every fault happened that was planned; with 1 if not, and with
    3 if the broker cannot be reached.
    """
    from worker.diagnostics.chaos.run import ChaosOptions
    from worker.errors import AutotagError, TryLater
    from worker.settings import AmqpSettings

    settings = CliContext.of(context).load().settings.amqp
    own = {"queue_prefix": f"autotag-chaos-{secrets.token_hex(4)}", "declare": True}
    try:
        wanted = AmqpSettings.model_validate(settings.model_dump() | own | ({"url": amqp} if amqp else {}))
    except ValueError as error:
        print_error(f"--amqp: {error}")
        raise typer.Exit(ExitCode.USAGE) from None
    with tempfile.TemporaryDirectory(prefix="autotag-chaos-") as folder:
        options = ChaosOptions(
            wanted,
            photographs,
            Path(folder),
            events,
            seed,
            workers,
            google_endpoint=google,
            microsoft_endpoint=microsoft,
            served=served.rstrip("/") if served else None,
            left_out=frozenset(leave_out or ()),
        )
        try:
            report = run(options)
        except AutotagError as error:
            print_error(error)
            raise typer.Exit(ExitCode.UNREACHABLE if isinstance(error, TryLater) else ExitCode.USAGE) from None
    show(report, as_json=as_json)
    raise typer.Exit(ExitCode.OK if report.sound else ExitCode.FAILED)


def run(options: ChaosOptions) -> ChaosReport:
    """Run with a progress bar on standard error. The run's queues are deleted, unless events were lost."""
    from worker.diagnostics.chaos.run import ChaosRun
    from worker.operations import logs

    logs.configure("error", "console")
    if options.missing:
        print_note(f"Not taking part: {'; '.join(options.missing)}. In `make chaos` all of it does.")
    for kind, why in options.not_asked_for.items():
        print_note(f"No faults of the kind {kind.value.replace('_', ' ')}: {why}. So the run cannot be sound.")

    async def run_and_clean_up(on_progress: Callable[[ChaosProgress], None]) -> ChaosReport:
        chaos_run = ChaosRun(options, on_progress)
        report = await chaos_run.run()
        if report.flaws["lost"]:
            print_note(f"the queues {chaos_run.topology.prefix}.… are kept for inspection")
        else:
            await chaos_run.delete_queues()
        return report

    with _progress_bar(options.events) as on_progress:
        return asyncio.run(run_and_clean_up(on_progress))


def show(report: ChaosReport, *, as_json: bool) -> None:
    """Print the report, as a table or as one JSON object."""
    if as_json:
        print_json(report.as_json())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "count", title=f"Chaos, seed {report.seed}", title_justify="left")
    table.add_row("events", f"{report.events:,}")
    for status, number in report.ends.items():
        table.add_row(f"ended {status.replace('_', ' ')}", f"{number:,}")
    for name in ("results", "partial_results", "dead_letters", "duplicates", "without_model", "waited_while_disabled"):
        table.add_row(name.replace("_", " "), f"{getattr(report, name):,}")
    for flaw, number in report.flaws.items():
        table.add_row(flaw.replace("_", " "), f"[{'red' if number else 'green'}]{number:,}[/]")
    for kind, planned in report.kills_planned.items():
        table.add_row(f"kills: {kind.replace('_', ' ')}", f"{report.kills[kind]} of {planned}")
    for what, number in report.took_part.items():
        table.add_row(cell(what), f"{number:,}")
    table.add_row("longest pause", f"{report.longest_pause_s:.1f} s")
    table.add_row("took", f"{report.seconds:,.0f} s")
    console = Console()
    console.print(table)
    for flaw, ids in report.examples.items():
        for event_id in ids:
            console.print(cell(f"{flaw.replace('_', ' ')}: {event_id}"), soft_wrap=True)
            for what in report.evidence.get(event_id, ()):
                console.print(cell(f"    {what}"), soft_wrap=True)
    console.print(cell(*report.verdict.split("\n")), soft_wrap=True)


@contextmanager
def _progress_bar(events: int) -> Iterator[Callable[[ChaosProgress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("starting", total=events)

        def on_progress(progress: ChaosProgress) -> None:
            bars.update(task, completed=progress.ended, description=f"{progress.kills} kills; {progress.now}")

        yield on_progress

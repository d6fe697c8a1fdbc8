"""`autotag topology`: brings exchanges, queues and bindings of an older version to how this one declares them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line

if TYPE_CHECKING:
    from worker.amqp.topology import Topology
    from worker.settings import AmqpSettings

app = typer.Typer(no_args_is_help=True, help="Exchanges, queues and bindings of an older version.")


@app.command()
def migrate(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Have the results queue get only what no other queue takes.

    Run it once no worker of an older version runs any more: those bind it to all results again. No result is lost. Run
    again, it does nothing.
    """
    from worker.amqp.topology import topology
    from worker.errors import AutotagError

    settings = CliContext.of(context).load().settings
    layout = topology(settings.amqp.queue_prefix, settings.retry.delays_s)
    try:
        was_old = asyncio.run(_migrate(settings.amqp, layout))
    except AutotagError as error:
        print_error(error)
        raise typer.Exit(ExitCode.UNREACHABLE) from None
    if as_json:
        print_json({"queue": layout.results_queue, "got_all_results": was_old})
    else:
        before = "it got all of them before" if was_old else "and did already, unless it was bound by hand"
        print_line(f"{layout.results_queue} gets the results that no other queue takes: {before}")


async def _migrate(amqp: AmqpSettings, layout: Topology) -> bool:
    from worker.amqp.connection import connected
    from worker.amqp.declare import as_it_is_there, share_results

    async with connected(amqp, "autotag-topology") as connection:
        was_old = not (await as_it_is_there(connection, layout)).shares_results
        await share_results(connection, layout)
    return was_old

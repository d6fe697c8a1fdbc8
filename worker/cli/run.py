"""`autotag run`: the service."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode


def run(
    context: typer.Context,
    check_only: Annotated[
        bool, typer.Option("--check-settings", help="Check whether the settings are valid, and end.")
    ] = False,
) -> None:
    """Take upload events from RabbitMQ, tag the images, publish the results, until SIGTERM.

    SIGHUP reads the settings again. A second SIGTERM ends at once; what is in hand goes back to its queue.
    """
    # Imported here, so that the other commands do not load what only the service needs.
    from worker.errors import Misconfigured
    from worker.operations import logs
    from worker.service import Service
    from worker.settings import Settings, load_settings

    cli = CliContext.of(context)
    settings = cli.load().settings
    if check_only:
        typer.echo("the settings are valid")
        return
    logs.configure(settings.log.level, settings.log.format)

    def reload() -> Settings:
        return load_settings(cli.config, secrets_dir=cli.secrets_dir).settings

    async def serve() -> int:
        return await Service(settings, reload).run()

    try:
        status = asyncio.run(serve())
    except Misconfigured as error:
        print(f"autotag: {error}", file=sys.stderr)
        status = ExitCode.MODEL if error.reason.startswith(("model", "weights")) else ExitCode.USAGE
    raise typer.Exit(status)

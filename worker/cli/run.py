"""`autotag run`: the service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_line

if TYPE_CHECKING:
    from worker.settings import LoadedSettings


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
    from worker.settings import Settings

    cli = CliContext.of(context)
    loaded = cli.load()
    settings = loaded.settings
    if check_only:
        print_line("the settings are valid")
        return
    logs.configure(settings.log.level, settings.log.format)
    _log_files(loaded)

    def reload() -> Settings:
        loaded = cli.read()
        _log_files(loaded)
        return loaded.settings

    async def serve() -> int:
        return await Service(settings, reload).run()

    try:
        status = asyncio.run(serve())
    except Misconfigured as error:
        print_error(error)
        status = ExitCode.MODEL if error.reason.startswith(("model", "weights")) else ExitCode.USAGE
    raise typer.Exit(status)


def _log_files(loaded: LoadedSettings) -> None:
    """Log which files of the working directory were read although nobody named them, and which were not."""
    import structlog

    log = structlog.get_logger(__name__)
    if loaded.found_files:
        log.info("settings of the working directory", files=[str(path.absolute()) for path in loaded.found_files])
    for ignored in loaded.ignored_files:
        log.warning("settings file is not read", file=ignored.key, why=ignored.message)
    for ignored in loaded.ignored_variables:
        log.warning("variable is not a setting", variable=ignored.key)

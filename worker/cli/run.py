"""`autotag run`: the service."""

from __future__ import annotations

import asyncio
import ctypes
from typing import Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.light_imports import import_without_rich
from worker.cli.output import print_error, print_json, print_line

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""

_LARGE_BYTES = 1 << 20


def run(
    context: typer.Context,
    check_only: Annotated[
        bool, typer.Option("--check-settings", help="Check whether the settings are valid, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With `--check-settings`: one JSON object.")] = False,
) -> None:
    """Take upload events from RabbitMQ, tag the images, publish the results, until SIGTERM.

    SIGHUP reads the settings again. A second SIGTERM ends at once; what is in hand goes back to its queue.
    """
    # Imported here, so that the other commands do not load what only the service needs.
    from worker.errors import Misconfigured
    from worker.operations import logs

    import_without_rich("httpx")
    from worker.service import Service, log_sources

    cli = CliContext.of(context)
    if as_json and not check_only:
        raise typer.BadParameter("the service prints its log, in the form of `log.format`", param_hint="--json")
    if check_only and as_json:
        _check_as_json(cli)
        return
    loaded = cli.load()
    settings = loaded.settings
    if check_only:
        print_line("the settings are valid")
        return
    logs.configure(settings.log.level, settings.log.format)
    log_sources(loaded)
    give_large_blocks_back()

    async def serve() -> int:
        return await Service(loaded, cli.read).run()

    try:
        status = asyncio.run(serve())
    except Misconfigured as error:
        print_error(error)
        status = ExitCode.MODEL if error.reason.startswith(("model", "weights")) else ExitCode.USAGE
    raise typer.Exit(status)


def _check_as_json(cli: CliContext) -> None:
    from worker.settings import UnusableSettings

    try:
        loaded = cli.read()
    except UnusableSettings as error:
        print_json({"valid": False, "problems": error.problems, "ignored": []})
        raise typer.Exit(ExitCode.USAGE) from None
    left_out = loaded.overlay.refused if loaded.overlay else ()
    ignored = [str(each) for each in (*loaded.ignored_files, *loaded.ignored_variables, *left_out)]
    print_json({"valid": True, "problems": [], "ignored": ignored})


def give_large_blocks_back() -> None:
    """Have glibc give the memory of a large message back when it is freed. Other C libraries do as they do.

    By itself it raises these limits with the largest block that it has seen, and keeps up to twice as much: after a few
    messages of 16 megabytes, as much again as they took.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator is not None:
        allocator(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        allocator(_M_TRIM_THRESHOLD, 4 * _LARGE_BYTES)

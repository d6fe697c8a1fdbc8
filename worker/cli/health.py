"""`autotag health`: whether the running service is alive."""

from __future__ import annotations

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.operate import AsJson, Socket
from worker.cli.output import print_error, print_json, print_line
from worker.cli.probe import ask, in_words


def health(context: typer.Context, as_json: AsJson = False, control_socket: Socket = None) -> None:
    """Say whether the running service is alive, whatever HTTP is set to; for a container's health check.

    Ends with 0 while its event loop turns, be it paused or without a broker, 1 while it does not, 3 if none answers.
    """
    path = control_socket or CliContext.of(context).control_socket()
    try:
        found = ask(path)
    except (OSError, ValueError) as error:
        print_error(f"no service answers on {path}: {error}")
        raise typer.Exit(ExitCode.UNREACHABLE) from None
    if as_json:
        print_json(found)
    else:
        print_line(in_words(found))
    raise typer.Exit(ExitCode.OK if found["alive"] else ExitCode.FAILED)

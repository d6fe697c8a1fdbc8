"""`autotag connect`: the connector, and what an operator asks of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import connect_targets
from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.light_imports import import_without_rich
from worker.cli.output import print_error, print_json, print_line

if TYPE_CHECKING:
    from worker.settings import Settings

app = typer.Typer(help="Connect other systems: their uploads become events, results become tags of theirs.")


@app.callback(invoke_without_command=True)
def connect(context: typer.Context) -> None:
    """Turn what other systems say about their images into events, and results into tags there, until SIGTERM.

    Each system is a table `[connect.NAME]` of the settings; `autotag connect presets` lists those that are known.
    SIGHUP reads the settings again.
    """
    if context.invoked_subcommand is None:
        run(context)


def run(context: typer.Context) -> None:
    """The connector itself."""
    from worker.errors import Misconfigured
    from worker.operations import logs

    import_without_rich("httpx")
    from worker.connect.service import Connector

    cli = CliContext.of(context)
    settings = cli.load().settings
    if not settings.connections:
        print_error(Misconfigured("there is no connection: no table [connect.NAME] is set, or none is enabled"))
        raise typer.Exit(ExitCode.USAGE)
    logs.configure(settings.log.level, settings.log.format)

    def reload() -> Settings:
        return cli.read().settings

    async def serve() -> int:
        return await Connector(settings, reload).run()

    try:
        status = asyncio.run(serve())
    except Misconfigured as error:
        print_error(error)
        status = ExitCode.USAGE
    raise typer.Exit(status)


app.command("try")(connect_targets.try_asset)
app.command("report")(connect_targets.report)
app.command("check")(connect_targets.check)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="Show what is said of this one, and its values.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """List the systems whose settings are known: `preset = "NAME"` in a connection's table."""
    from worker.settings.presets import preset, preset_names, preset_notes

    names = preset_names() if name is None else [name]
    try:
        notes = {each: preset_notes(each) for each in names}
    except KeyError:
        raise typer.BadParameter(f"there is none; there are {', '.join(preset_names())}", param_hint="name") from None
    if as_json:
        print_json({each: {"notes": notes[each], "values": preset(each)} for each in names})
    elif name is not None:
        print_line("\n".join(notes[name]))
    else:
        for each in names:
            print_line(f"{each:16} {notes[each][0]}")


@app.command()
def rewind(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The connection.")],
    to: Annotated[str, typer.Option(help="A time as in RFC 3339, or a number: where its next listing begins.")],
    again: Annotated[bool, typer.Option("--again", help="Send images again that were sent before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Have a poller list once more from an earlier value of its cursor on, also while the connector runs."""
    from worker.connect.seen import SeenImages
    from worker.connect.service import SEEN_FILE
    from worker.settings.cursors import as_cursor

    settings = CliContext.of(context).load().settings
    if name not in settings.connect or not settings.connect[name].poll.enabled:
        raise typer.BadParameter(f"no connection {name!r} has a poller", param_hint="name")
    try:
        as_cursor(to)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--to") from None
    seen = SeenImages(settings.state_dir / SEEN_FILE, settings.connector.keep_days * 86_400.0)
    if again:
        seen.forget(name)
    seen.set_cursor(name, to)
    fault = seen.fault
    seen.close()
    if fault is not None:
        print_error(f"the cursor can't be kept: {fault}")
        raise typer.Exit(ExitCode.FAILED)
    if as_json:
        print_json({"connection": name, "cursor": to, "again": again})
    else:
        print_line(f"{name}: the next listing begins at {to}")

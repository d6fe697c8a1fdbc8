"""The root of the command line: the options that every command shares, and the table of commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worker import __version__
from worker.cli import (
    backfill,
    bench,
    calibrate,
    chaos,
    check,
    config,
    connect,
    dead_letters,
    evaluate,
    health,
    model,
    operate,
    publish,
    results,
    run,
    schema,
    shadow,
    simulate,
    tag,
    topology,
    vocabulary,
)
from worker.cli.context import CliContext
from worker.cli.output import print_line
from worker.cli.shared_options import add_to_all
from worker.operations.printable import printable
from worker.settings.names import CONFIG_VARIABLE, ENV_FILE_VARIABLE, SECRETS_VARIABLE
from worker.supervision.untraceable import forbid_tracing


class PrintableErrors(TyperGroup):
    """The root: its options are those of every command; what is said of a misused one is printable, whatever it is."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        add_to_all(self.commands, self.params)

    def make_context(self, *args: Any, **options: Any) -> Any:
        """See `_printable_errors`."""
        with _printable_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """See `_printable_errors`."""
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        error.message = printable(error.message)
        raise


_UsageError: Any = typer.BadParameter.__mro__[1]
"""What the parser raises; Typer does not export it."""

app = typer.Typer(
    name="autotag",
    cls=PrintableErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, which may hold secrets
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Tags the images that a document management system announces over RabbitMQ.\n\n"
        "Begin with `autotag tag photo.jpg`, which needs no broker; then `autotag check`, and `autotag run`.\n\n"
        "Exit codes: 0 done; 1 something asked for could not be done; 2 wrong usage or settings; "
        "3 RabbitMQ or the service unreachable; 4 model missing or damaged; 5 not in time."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        print_line(f"autotag {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar=CONFIG_VARIABLE, help="Settings file (TOML).", metavar="FILE"),
    ] = None,
    secrets_dir: Annotated[
        Path | None,
        typer.Option(envvar=SECRETS_VARIABLE, help="Directory with one secret a file.", metavar="DIR"),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(envvar=ENV_FILE_VARIABLE, help="File with variables, instead of `./.env`.", metavar="FILE"),
    ] = None,
    traceable: Annotated[
        bool,
        typer.Option(
            "--traceable", help="Let other processes of this user look into this one, as `py-spy` and `gdb` do."
        ),
    ] = False,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Settings come from the environment (`AUTOTAG_…`), `.env`, secrets, the overlay and a TOML file, in this order."""
    if not traceable:
        forbid_tracing()
    context.obj = CliContext(config=config_file, secrets_dir=secrets_dir, env_file=env_file)


app.command("run")(run.run)
app.command("tag")(tag.tag)
app.command("publish")(publish.publish)
app.command("backfill")(backfill.backfill)
app.command("check")(check.check)
app.command("results")(results.results)
app.command("status")(operate.status)
app.command("health")(health.health)
app.command("reset")(operate.reset)
app.command("pause")(operate.pause)
app.command("resume")(operate.resume)
app.command("reload")(operate.reload)
app.command("schema")(schema.schema)
app.command("bench")(bench.bench)
app.command("chaos")(chaos.chaos)
app.command("evaluate")(evaluate.evaluate)
app.command("calibrate")(calibrate.calibrate)
app.command("simulate")(simulate.simulate)
app.add_typer(connect.app, name="connect")
app.add_typer(config.app, name="config")
app.add_typer(model.app, name="model")
app.add_typer(shadow.app, name="shadow")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(topology.app, name="topology")
app.add_typer(vocabulary.app, name="vocabulary")

"""`autotag config`: a first configuration, the settings in effect with their origins, the reference of all settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli import change_settings
from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.first_configuration import init
from worker.cli.output import print_error, print_json, print_lines
from worker.cli.running_settings import show_running
from worker.cli.settings_table import for_people, print_table
from worker.settings import EffectiveSetting, LoadedSettings
from worker.settings.load import BY_DEFAULT
from worker.settings.reference import reference, reference_as_json
from worker.settings.schema import dotted

CHECKED_IN = Path("docs/settings.md")

app = typer.Typer(
    help="Write a first configuration; show and change the settings in effect; the reference of all settings.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command("init")(init)
app.command("set")(change_settings.set_value)
app.command("unset")(change_settings.unset)
app.command("history")(change_settings.history)
app.command("undo")(change_settings.undo)


@app.command()
def show(
    context: typer.Context,
    instance: Annotated[str | None, typer.Option(help="Show the settings of this virtual instance.")] = None,
    running: Annotated[
        bool,
        typer.Option(
            "--running", help="Ask the running service: what is in force, since when, and what a reload would change."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Print the effective settings, with where each value came from; secrets are masked.

    Without `--running` the sources are read as they are now, whether or not a service runs with them.
    """
    if running:
        show_running(CliContext.of(context).control_socket(), instance, as_json)
        return
    loaded = CliContext.of(context).load()
    effective = list(loaded.system() if instance is None else loaded.instance(instance))
    known = instance is None or instance in loaded.settings.instances
    if as_json:
        print_json(_as_json(loaded, instance, known, effective), indent=2)
        return
    if not known:
        refused = loaded.settings.unknown_instances == "refuse"
        without = "its events are refused" if refused else "its events are skipped"
        consequence = "the defaults hold for it" if effective else without
        print_error(f"no settings name the instance {instance!r}; {consequence}")
    if effective:
        rows = [(each.key, (for_people(each.value), each.origin), each.origin != BY_DEFAULT) for each in effective]
        print_table(("value", "from"), rows)


@app.command("reference")
def write_reference(
    path: Annotated[Path | None, typer.Argument(help="The file to write, instead of printing it.")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help=f"Write nothing; fail when the file, or {CHECKED_IN}, is not up to date."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON: every setting, or which file was written or is up to date.")
    ] = False,
) -> None:
    """Print, write or check the reference of all settings (Markdown), generated from the classes."""
    text = reference()
    if not check and path is None:
        if as_json:
            print_json({"settings": reference_as_json()}, indent=2)
        else:
            print_lines(text)
        return
    path = path or CHECKED_IN
    if not check:
        path.write_text(text, "utf-8")
        if as_json:
            print_json({"written": str(path)})
        return
    current = path.is_file() and path.read_text("utf-8") == text
    if as_json:
        print_json({"checked": str(path), "up_to_date": current})
    elif not current:
        print_error(f"{path} is not up to date: run `autotag config reference {path}`")
    if not current:
        raise typer.Exit(ExitCode.FAILED)


def _as_json(
    loaded: LoadedSettings, instance: str | None, known: bool, effective: Iterable[EffectiveSetting]
) -> dict[str, Any]:
    return {
        "config_file": str(loaded.config_file) if loaded.config_file else None,
        "instance": instance,
        "known": known,
        "settings": {dotted(each.key): {"value": each.value, "origin": each.origin} for each in effective},
    }

"""What the running service says of its settings, over the control socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import typer

from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json
from worker.cli.settings_table import Row, for_people, print_table
from worker.errors import CannotBeDone, TryLater
from worker.settings.load import BY_DEFAULT
from worker.settings.overlay.written import key_written


def ask_running(path: Path, **about: str) -> dict[str, Any]:
    """The answer to the command `settings`. Raises TryLater if no service answers, or one that knows no such command.

    `about`: `instance`, the name of one whose settings are asked for.
    """
    from worker.operations.control import send_command

    found = asyncio.run(send_command(path, "settings", about=about))
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise TryLater("the service's settings cannot be read; is it another version?", reason="service_unreachable")
    return found


def show_running(path: Path, instance: str | None, as_json: bool) -> None:
    """Print what is in force in the service that listens on `path`."""
    try:
        found = ask_running(path, **({} if instance is None else {"instance": instance}))
    except TryLater as error:
        print_error(error)
        refused = error.reason == "command_failed"
        raise typer.Exit(ExitCode.FAILED if refused else ExitCode.UNREACHABLE) from None
    if as_json:
        print_json(found, indent=2)
        return
    try:
        rows = [_row(key, each) for key, each in found["settings"].items()]
    except (KeyError, TypeError, AttributeError, CannotBeDone):
        print_error("the service's settings cannot be read; does it run another version of Autotag?")
        raise typer.Exit(ExitCode.FAILED) from None
    print_table(("value", "from", "since"), rows)
    overlay = found.get("overlay") or {}
    for line in overlay.get("left_out", ()):
        print_error(line)
    if found.get("would_be_refused"):
        print_error(f"a reload would be refused: {found['would_be_refused']}")
    elsewhere = [key for key in found.get("would_change", ()) if key not in found["settings"]]
    if elsewhere:
        print_error(f"a reload would also change: {', '.join(map(str, elsewhere))}")


def _row(key: str, found: dict[str, Any]) -> Row:
    origin = str(found["origin"])
    value = _value(found, "value")
    if "changes_at" in found:
        value += f"\n{_value(found, 'next_value')} at the next {found['changes_at']}, from {found['next_origin']}"
    return key_written(key), (value, origin, str(found["since"])), origin != BY_DEFAULT


def _value(found: dict[str, Any], name: str) -> str:
    value = found[name]
    return f"set, fingerprint {for_people(value)}" if found["secret"] and value else for_people(value)

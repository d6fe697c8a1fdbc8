"""The options that every command has, and how a command loads the settings with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error
from worker.errors import Misconfigured
from worker.operations.printable import printable
from worker.settings import LoadedSettings, UnusableSettings, load_settings
from worker.settings.control_socket import readable_control_socket


@dataclass(frozen=True, slots=True)
class CliContext:
    """The options of every command; `obj` of the root's `typer.Context` holds it."""

    config: Path | None = None
    secrets_dir: Path | None = None
    env_file: Path | None = None

    @classmethod
    def of(cls, context: typer.Context) -> CliContext:
        """The context that the root command created, with what was written after the command's name."""
        found = context.find_root().obj
        return found if isinstance(found, cls) else cls()

    def load(self) -> LoadedSettings:
        """Load the settings. If they are invalid, print the problems to stderr and end the command with status 2."""
        try:
            loaded = self.read()
        except Misconfigured as error:
            print_error(error)
            raise typer.Exit(ExitCode.USAGE) from None
        _report_files(loaded)
        return loaded

    def control_socket(self) -> Path:
        """Where the running service listens. Settings that cannot be used are reported in one line, and do no harm."""
        try:
            loaded = self.read()
        except UnusableSettings as error:
            path = readable_control_socket(self.config, secrets_dir=self.secrets_dir, env_file=self.env_file)
            first, *others = error.problems
            more = f", and {len(others)} more: `autotag run --check-settings`" if others else ""
            print_error(f"the settings cannot be used ({printable(first)}{more}); asking the service on {path}")
            return path
        _report_files(loaded)
        return loaded.settings.control_socket

    def read(self, *, overlay: Mapping[str, Any] | None = None) -> LoadedSettings:
        """Read the settings from where the options say; see `load_settings`. Raises Misconfigured."""
        return load_settings(self.config, secrets_dir=self.secrets_dir, env_file=self.env_file, overlay=overlay)


def _report_files(loaded: LoadedSettings) -> None:
    if loaded.found_files:
        print_error(f"settings from {', '.join(map(str, loaded.found_files))}")
    left_out = loaded.overlay.refused if loaded.overlay else ()
    for ignored in (*loaded.ignored_files, *loaded.ignored_variables, *left_out):
        print_error(ignored)

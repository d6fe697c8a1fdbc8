"""The options that precede every command, and how a command loads the settings with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error
from worker.errors import Misconfigured
from worker.settings import LoadedSettings, load_settings


@dataclass(frozen=True, slots=True)
class CliContext:
    """The options that come before a command's name; `typer.Context.obj` holds it."""

    config: Path | None = None
    secrets_dir: Path | None = None
    env_file: Path | None = None

    @classmethod
    def of(cls, context: typer.Context) -> CliContext:
        """The context that the root command created."""
        return context.find_object(cls) or cls()

    def load(self) -> LoadedSettings:
        """Load the settings. If they are invalid, print the problems to stderr and end the command with status 2."""
        try:
            loaded = self.read()
        except Misconfigured as error:
            print_error(error)
            raise typer.Exit(ExitCode.USAGE) from None
        if loaded.found_files:
            print_error(f"settings from {', '.join(map(str, loaded.found_files))}")
        for ignored in (*loaded.ignored_files, *loaded.ignored_variables):
            print_error(ignored)
        return loaded

    def read(self) -> LoadedSettings:
        """Read the settings from where the options say. Raises Misconfigured."""
        return load_settings(self.config, secrets_dir=self.secrets_dir, env_file=self.env_file)

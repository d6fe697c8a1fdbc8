"""The command line `autotag`: one module per command or command group. Only this package prints for people."""

from __future__ import annotations


def main() -> None:
    """The entry point of the `autotag` command."""
    from worker.cli.app import app

    app()

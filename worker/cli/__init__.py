"""The command line `autotag`: one file a command or command group; the only place that prints for people."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `autotag` command."""
    from worker.cli.app import app

    app()

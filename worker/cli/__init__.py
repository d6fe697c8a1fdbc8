"""The command line `autotag`: one module per command or command group. Only this package prints for people."""

from __future__ import annotations


def main() -> None:
    """The entry point of the `autotag` command."""
    from worker.cli.standard_streams import failures_in_one_line, prepare

    prepare()
    with failures_in_one_line():
        from worker.cli.app import app

        app()

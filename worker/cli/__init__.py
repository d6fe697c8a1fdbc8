"""The command line `autotag`: one module per command or command group. Only this package prints for people."""

from __future__ import annotations


def main() -> None:
    """The entry point of the `autotag` command."""
    from worker.cli.light_imports import import_without_rich

    import_without_rich("structlog")
    from worker.cli.standard_streams import failures_in_one_line, faults_printable, prepare

    prepare()
    with faults_printable(), failures_in_one_line():
        from worker.cli.app import app

        app()

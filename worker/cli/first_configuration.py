"""`autotag config init`: a first settings file, commented, with the schema for editors beside it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_error, print_json, print_line, print_lines
from worker.cli.schema import documents
from worker.settings.file_schema import FILE_NAME


def init(
    path: Annotated[
        Path | None,
        typer.Argument(help="The file to write, or a directory for `autotag.toml`; without one it is printed."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON: the text of the configuration, or which files were written.")
    ] = False,
) -> None:
    """Write a first configuration, commented, that tags with the local model. It asks nothing, and overwrites none.

    The schema for editors is written beside it, as `autotag.schema.json`, in place of that of an earlier version.
    """
    text = first_configuration()
    if path is None:
        if as_json:
            print_json({"configuration": text})
        else:
            print_lines(text)
        return
    file = path / "autotag.toml" if path.is_dir() else path
    schema = file.with_name(FILE_NAME)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        print_error(f"{file} is there already, and is left as it is: name another file, or move it away")
        raise typer.Exit(ExitCode.FAILED) from None
    schema.write_text(documents()[FILE_NAME], encoding="utf-8")
    if as_json:
        print_json({"written": [str(file), str(schema)]})
        return
    print_line(f"wrote {file}, and {schema} for your editor")
    print_line(f"next: put your RabbitMQ's address into it, then: autotag --config {file} check")


def first_configuration() -> str:
    """The text of the file."""
    return files("worker.cli").joinpath("first_configuration.toml").read_text(encoding="utf-8")

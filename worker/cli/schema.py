"""`autotag schema`: the JSON Schemas of messages, settings and rules files, and the AsyncAPI document."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from worker.amqp.asyncapi import asyncapi
from worker.amqp.topology import topology
from worker.cli.exit_codes import ExitCode
from worker.cli.output import print_json, print_line, print_lines, print_note
from worker.messages.schemas import schemas
from worker.settings import AmqpSettings, RetrySettings
from worker.settings.file_schema import FILE_NAME, file_schema
from worker.settings.rules_file import rules_schema

CHECKED_IN = Path("docs/schemas")


class Document(StrEnum):
    """The documents, by the name to request them by."""

    EVENT = "event"
    EVENT_DATA = "event-data"
    RESULT = "result"
    RESULT_DATA = "result-data"
    LABEL_RULES = "label-rules"
    SETTINGS = "settings"
    ASYNCAPI = "asyncapi"


def schema(
    document: Annotated[Document | None, typer.Argument(help="Which one; all of them unless given.")] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write them as files into this directory instead of printing.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help=f"Compare with the files in {CHECKED_IN}; exit status 1 when one differs.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object: the documents by file name, what was written, what differs."),
    ] = False,
) -> None:
    """Print, write or check the JSON Schemas of messages, settings and rules files, and the AsyncAPI document."""
    wanted = documents()
    if document is not None:
        wanted = {file_name(document): wanted[file_name(document)]}
    if check:
        _check(wanted, as_json)
    elif write is not None:
        write.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            (write / name).write_text(text, encoding="utf-8")
            if not as_json:
                print_line(f"wrote {write / name}")
        if as_json:
            print_json({"written": [str(write / name) for name in wanted]})
    elif document is not None and not as_json:
        print_lines(wanted[file_name(document)])
    else:
        everything = {name: json.loads(text) for name, text in wanted.items()}
        print_json(everything, indent=None if as_json else 2)


def documents() -> dict[str, str]:
    """Every document by file name, as text. The AsyncAPI document uses the queue names of the default settings."""
    defaults = topology(AmqpSettings().queue_prefix, RetrySettings().delays_s)
    trees = {**schemas(), Document.LABEL_RULES: rules_schema()}
    trees |= {Document.SETTINGS: file_schema(), Document.ASYNCAPI: asyncapi(defaults)}
    return {file_name(Document(name)): json.dumps(trees[name], indent=2, ensure_ascii=False) + "\n" for name in trees}


def file_name(document: Document) -> str:
    """The name under which a document is checked in: `event.schema.json`, `autotag.schema.json`, `asyncapi.json`."""
    match document:
        case Document.ASYNCAPI:
            return "asyncapi.json"
        case Document.SETTINGS:
            return FILE_NAME
        case _:
            return f"{document}.schema.json"


def _check(wanted: dict[str, str], as_json: bool) -> None:
    differing = [name for name, text in wanted.items() if _read(CHECKED_IN / name) != text]
    if as_json:
        print_json({"checked": [str(CHECKED_IN / name) for name in wanted], "differing": differing})
        if differing:
            raise typer.Exit(ExitCode.FAILED)
        return
    if differing:
        print_note(
            f"{', '.join(differing)} in {CHECKED_IN} {'differs' if len(differing) == 1 else 'differ'} from the code; "
            f"write them again with: autotag schema --write {CHECKED_IN}"
        )
        raise typer.Exit(ExitCode.FAILED)
    print_line(f"{CHECKED_IN}: {len(wanted)} files as the code has them")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None

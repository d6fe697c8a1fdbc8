"""How the commands print: every text goes through `worker/operations/printable.py`, as others may have written it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from worker.operations.printable import printable, printable_json, printable_lines

if TYPE_CHECKING:
    from rich.text import Text


def print_line(text: str) -> None:
    """Print one line to standard output."""
    print(printable(text), flush=True)


def print_lines(text: str) -> None:
    """Print a text of our own to standard output as it is, such as a file in TOML, without a line break at its end."""
    print("\n".join(map(printable, text.split("\n"))), end="", flush=True)


def print_note(text: str) -> None:
    """Print one line to standard error."""
    print(printable(text), file=sys.stderr, flush=True)


def print_error(error: object) -> None:
    """Print what went wrong to standard error, after the program's name; it may have several lines."""
    print(f"autotag: {printable_lines(str(error))}", file=sys.stderr, flush=True)


def print_fault(traceback: str) -> None:
    """Print the traceback of a fault of ours to standard error."""
    print(printable_lines(traceback), file=sys.stderr, flush=True)


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print a value as JSON to standard output: on one line, unless there is an `indent`."""
    print(printable_json(json.dumps(value, indent=indent, ensure_ascii=False)), flush=True)


def cell(*texts: str) -> Text:
    """Text for a table of rich, a line for each; its square brackets are no markup."""
    from rich.text import Text

    return Text("\n".join(map(printable, texts)))

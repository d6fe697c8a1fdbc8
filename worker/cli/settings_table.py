"""Settings as a table for people: a heading for each table of the file, and a row for each setting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ByteSize

from worker.cli.output import cell
from worker.settings.schema import SettingKey, dotted

Row = tuple[SettingKey, Sequence[str], bool]
"""The key, the other cells, and whether a source sets it: defaults are dimmed."""


def print_table(headings: Sequence[str], rows: Iterable[Row]) -> None:
    """Print the rows; `headings` are those of the cells behind the key."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("key", *headings):
        table.add_column(heading, overflow="fold", no_wrap=heading == "since")
    section: SettingKey = ()
    for key, cells, is_set in rows:
        if key[:-1] != section:
            section = key[:-1]
            table.add_row()
            table.add_row(cell(f"[{dotted(section)}]"), style="bold")
        table.add_row(cell(key[-1]), *(cell(*text.split("\n")) for text in cells), style="" if is_set else "dim")
    Console().print(table)


def for_people(value: Any) -> str:
    """A value in one line."""
    match value:
        case None:
            return "unset"
        case str():
            return value
        case float():
            return f"{value:g}"
        case ByteSize() if value:
            return f"{value} ({value.human_readable(separator=' ')})"
        case _:
            return json.dumps(value, ensure_ascii=False)

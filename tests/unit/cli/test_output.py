"""What commands print: text of others never commands the terminal, and JSON keeps its value."""

from __future__ import annotations

import json

import pytest
from rich.console import Console
from rich.table import Table

from worker.cli import output
from worker.errors import Misconfigured

HOSTILE = "a\x1b[31m\r\u202eb"
SHOWN = r"a\x1b[31m\x0d\u202eb"


def test_lines_errors_and_notes_show_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_line(HOSTILE)
    output.print_note(HOSTILE)
    output.print_error(Misconfigured(f"two problems:\n  {HOSTILE}\n{HOSTILE}", reason="settings"))
    output.print_lines(f"one = {HOSTILE}\ntwo = 2\n")
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\none = {SHOWN}\ntwo = 2\n"
    assert err == f"{SHOWN}\nautotag: two problems:\n  {SHOWN}\n  {SHOWN}\n"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_shows_escapes_and_keeps_the_value(capsys: pytest.CaptureFixture[str], indent: int | None) -> None:
    output.print_json({"name": HOSTILE, "city": "Köln"}, indent=indent)
    text = capsys.readouterr().out
    assert "\\u202e" in text
    assert "Köln" in text
    assert [each for each in text.replace("\n", "") if not each.isprintable()] == []
    assert json.loads(text) == {"name": HOSTILE, "city": "Köln"}


def test_a_cell_shows_escapes_and_interprets_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("tags", box=None)
    table.add_row(output.cell(HOSTILE, "[red][link=http://example.org]two[/link]"))
    Console(width=100).print(table)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [SHOWN, "[red][link=http://example.org]two[/link]"]

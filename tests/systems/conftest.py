"""Tests against other people's systems, real ones: `make integrations`. At the end, a table of what stands in them."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable

import pytest

_WIDEST = 56
"""Characters of a column; longer ones have several lines."""
_ROWS = pytest.StashKey[list[tuple[str, str, str]]]()


class Table:
    """What was done, with what, and which tags stand in the system afterwards."""

    def __init__(self, rows: list[tuple[str, str, str]]) -> None:
        self._rows = rows

    def row(self, done: str, what: str, tags: Iterable[str]) -> None:
        """Add a row."""
        self._rows.append((done, what, ", ".join(sorted(tags)) or "none"))


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Table:
    """The table that is printed at the end."""
    return Table(request.config.stash.setdefault(_ROWS, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    terminalreporter.section("what stands in the systems")
    heads = ("done", "with", "tags there")
    cells = [[textwrap.wrap(cell, _WIDEST) or [""] for cell in row] for row in (heads, *rows)]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(3)]
    for row in cells:
        for lines in itertools.zip_longest(*row, fillvalue=""):
            terminalreporter.write_line("  ".join(f"{line:{width}}" for line, width in zip(lines, widths, strict=True)))

"""Tests against other people's systems, real ones: `make integrations`. At the end, a table of what stands in them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

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
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(2)]
    for done, what, tags in (heads, *rows):
        terminalreporter.write_line(f"{done:{widths[0]}}  {what:{widths[1]}}  {tags}")

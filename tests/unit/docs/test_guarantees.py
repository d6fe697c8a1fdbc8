"""Every promise in docs/guarantees.md has a test, and every file of fault tests belongs to a promise."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[(?P<name>test_\w+(?:\.py)?)\]\(\.\./(?P<file>tests/[\w/]+\.py)\)")


def test_every_promise_links_a_test_that_exists() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| when")]
    assert len(rows) > 30
    for row in rows:
        links = list(LINK.finditer(row))
        assert links, row
        for link in links:
            text = (ROOT / link["file"]).read_text(encoding="utf-8")
            assert link["name"] == Path(link["file"]).name or f"def {link['name']}(" in text, link["name"]


def test_every_file_of_faults_belongs_to_a_promise() -> None:
    linked = {Path(link["file"]).name for link in LINK.finditer(PAGE)}
    faults = {file.name for file in (ROOT / "tests/faults").glob("test_*.py")}
    assert faults - linked == set()

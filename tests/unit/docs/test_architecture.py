"""docs/architecture.md and docs/decisions agree with the tree: what they name exists. Links: test_links.py."""

from __future__ import annotations

import configparser
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ARCHITECTURE = ROOT / "docs/architecture.md"
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
MAP = [ARCHITECTURE, *DECISIONS]

MAXIMUM_ENTRIES = 24  # as in tests/unit/test_house.py, which says why

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"`((?:worker|tests|deploy)/[\w./-]*)`")
NAMED_CLASS = re.compile(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`")
NAMED_FUNCTION = re.compile(r"`(\w+)\(\)`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(?P<text>.+?) *$", re.MULTILINE)
TREE_LINE = re.compile(r"^[├└]─ (?P<name>[\w.]+/?) ", re.MULTILINE)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path) -> list[str]:
    return [fence.strip("`").strip("\n") for fence in FENCE.findall(read(page))]


def tree() -> str:
    return next(fence for fence in fences(ARCHITECTURE) if fence.startswith("worker/\n"))


def rows_of_table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = read(ARCHITECTURE).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip(" |") for cell in row] for row in rows[2:]]


def source() -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "worker").rglob("*.py")))


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").lower()
    kept = (each for each in text if each in " -_" or unicodedata.category(each)[0] in "LNM")
    return "".join(kept).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    found: set[str] = set()
    for heading in HEADING.finditer(FENCE.sub("", read(page))):
        first = name = slug(heading["text"])
        number = 0
        while name in found:
            number += 1
            name = f"{first}-{number}"
        found.add(name)
    return found


def dead_links(page: Path) -> Iterator[str]:
    for link in LINK.finditer(FENCE.sub("", read(page))):
        target = link["target"]
        if re.match(r"[a-z]+:", target):  # another site is not ours to check
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("page", MAP, ids=named)
def test_every_file_that_is_named_exists(page: Path) -> None:
    missing = {path for path in NAMED_FILE.findall(read(page)) if not (ROOT / path).exists()}
    assert missing == set()


@pytest.mark.parametrize("page", MAP, ids=named)
def test_every_class_and_function_that_is_named_exists(page: Path) -> None:
    code = source()
    text = FENCE.sub("", read(page))
    defined = set(re.findall(r"^(?:class )?(\w+)(?:[:(\[]| *=)", code, re.MULTILINE))
    functions = set(re.findall(r"^ *(?:async )?def (\w+)", code, re.MULTILINE))
    assert set(NAMED_CLASS.findall(text)) - defined == set()
    assert set(NAMED_FUNCTION.findall(text)) - functions == set()


def test_every_entry_of_worker_is_described_and_there_are_few() -> None:
    entries = {path.name + "/" * path.is_dir() for path in (ROOT / "worker").iterdir() if path.name != "__pycache__"}
    assert {line["name"] for line in TREE_LINE.finditer(tree())} == entries
    assert len(entries) <= MAXIMUM_ENTRIES


def test_every_module_in_the_picture_of_the_folders_exists() -> None:
    folder, missing = "", []
    for line in tree().splitlines():
        if entry := TREE_LINE.match(line):
            folder = entry["name"]
        elif line.startswith("│    "):
            first = re.findall(r"[\w.]+/?", line)[0]
            others = re.findall(r"\b\w+\.py\b", line)
            missing += [
                f"{folder}{each}" for each in {first, *others} if not (ROOT / "worker" / folder / each).exists()
            ]
    assert missing == []


def test_the_rows_of_imports_are_those_of_the_linter() -> None:
    linter = configparser.ConfigParser()
    linter.read(ROOT / ".importlinter", encoding="utf-8")
    rows = linter["importlinter:contract:layers"]["layers"].replace("worker.", "").strip()
    assert rows in fences(ARCHITECTURE)


def test_every_term_of_the_glossary_is_there_once_and_names_its_file() -> None:
    rows = rows_of_table("Glossary")
    terms = [row[0].replace("`", "").lower() for row in rows]
    assert len(terms) > 60
    assert all(first < second for first, second in pairwise(terms)), "in the order of the alphabet, each once"
    for term, *_, owner in rows:
        files = re.findall(r"`([^`]+)`", owner)
        assert files, term
        assert all((ROOT / file).exists() for file in files), term


def test_every_class_in_the_glossary_is_defined_in_the_file_of_its_term() -> None:
    for term, meaning, owner in rows_of_table("Glossary"):
        files = [ROOT / file for file in re.findall(r"`([^`]+)`", owner)]
        code = "\n".join(read(file) for file in files if file.is_file())
        for name in NAMED_CLASS.findall(f"{term} {meaning}"):
            if name != term.strip("`") and f"(`{name}`)" not in meaning:
                continue  # mentioned in passing
            assert re.search(rf"^(class {name}\b|{name} = )", code, re.MULTILINE), f"{term}: {name}"


def test_every_question_is_answered_with_a_file() -> None:
    rows = [row for row in rows_of_table("Where is it?") if not row[0].startswith("**")]
    assert len(rows) > 25
    for question, answer in rows:
        assert NAMED_FILE.search(answer), question


def test_every_decision_is_in_the_index_and_says_context_decision_and_consequences() -> None:
    index = read(ROOT / "docs/decisions/README.md")
    records = [page for page in DECISIONS if page.name != "README.md"]
    assert [page.name[:4] for page in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for page in records:
        assert f"]({page.name})" in index
        parts = re.findall(r"^\*\*(\w+)\.\*\*", read(page), re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"], page.name

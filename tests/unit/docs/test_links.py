"""No page leads nowhere: every link, and every name in backticks that looks like a file of this repository."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.docs.test_architecture import FENCE, ROOT, dead_links, named

PAGES = sorted(
    file
    for file in ROOT.rglob("*.md")
    if not any(part.startswith(".") and part != ".github" for part in file.relative_to(ROOT).parts)
)

CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FOLDERS = {file.name for file in ROOT.iterdir() if file.is_dir() and not file.name.startswith(".")}
PATH = re.compile(rf"(?:\./)?(?:{'|'.join(sorted(FOLDERS))}|\.ci|\.github)/[\w.*/-]*")
ENDINGS = "py|md|sh|toml|yaml|yml|json|svg|css|js|txt|lock|service|tsv|cfg"
FILE = re.compile(rf"[\w-][\w.-]*\.(?:{ENDINGS})")

IN_TEXT = re.compile(rf"(?<![\w./~$-])(?:{'|'.join(sorted(FOLDERS))})/[\w./-]*\.(?:{ENDINGS})\b")
"""A path in the text, or in a block of code: one of a file, below a folder of the repository."""

NO_FILES_OF_OURS = {
    "autotag.toml": "an operator's settings",
    "calibrated.toml": "what a command writes, in an example",
    "FILE.svg": "what a command writes, in an example",
    "TERMS.txt": "an operator's own words, in an example",
    "random.py": "an attacker's file",
    "autotag_worker-X.Y.Z.cdx.json": "a file of a release",
    "autotag_worker-X.Y.Z-tensorflow.cdx.json": "a file of a release",
    "overlay.toml": "written by `autotag config set`, in the state directory",
    "canary.json": "written by the service, in its state directory",
    "bench/out/results.json": "written by `make bench`",
}
"""Names that look like a file here and are not one, each with what it is."""


def names_in(page: Path) -> Iterator[str]:
    """What is in backticks, word by word: `scripts/chaos.py --events 10` names a file too."""
    for code in CODE.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        for word in code.split():
            yield word.strip("(),:;")


def is_there(name: str, page: Path) -> bool:
    """Whether a name with a folder is a file or a folder of the repository, or a pattern that some are like."""
    if "*" in name:
        return any(ROOT.glob(name))
    return (ROOT / name).exists() or (page.parent / name).exists()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(dead_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_in_backticks_exists(page: Path) -> None:
    missing = {name for name in names_in(page) if PATH.fullmatch(name) and not is_there(name, page)}
    assert missing - NO_FILES_OF_OURS.keys() == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_of_a_file_in_the_text_exists(page: Path) -> None:
    missing = {name for name in IN_TEXT.findall(page.read_text(encoding="utf-8")) if not is_there(name, page)}
    assert missing - NO_FILES_OF_OURS.keys() == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_name_in_backticks_is_one_of_a_file(page: Path) -> None:
    known = known_names()
    missing = {name for name in names_in(page) if FILE.fullmatch(name) and name not in known | NO_FILES_OF_OURS.keys()}
    assert missing == set()


def known_names() -> set[str]:
    """The name of every file of the repository; what tools leave is in folders that begin with a dot."""
    names: set[str] = set()
    for _, folders, files in os.walk(ROOT):
        folders[:] = [each for each in folders if not each.startswith(".") or each in {".ci", ".github"}]
        names.update(files)
    return names


def test_the_pages_are_found() -> None:
    assert {"README.md", "docs/runbook.md", "docs/decisions/README.md", "scripts/kind_head/README.md"} <= set(
        map(named, PAGES)
    )


def test_a_name_of_no_file_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("See `worker/nothing.py`, `docs/*.md` and `docs/none*.md`, and `no_such_file.py --all`.\n")
    names = [name for name in names_in(page) if PATH.fullmatch(name) or FILE.fullmatch(name)]
    assert names == ["worker/nothing.py", "docs/*.md", "docs/none*.md", "no_such_file.py"]
    assert [is_there(name, page) for name in names[:3]] == [False, True, False]
    assert names[3] not in known_names()

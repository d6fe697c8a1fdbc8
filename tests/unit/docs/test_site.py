"""The documentation site has every page, and links that are written for a code host lead to the same there."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

from site_pages import ROOT_PAGES, rewritten  # noqa: E402

KNOWN = {"index.md", "settings.md", "decisions/README.md", "images/a.png", "examples/publishers/README.md"} | set(
    ROOT_PAGES.values()
)
REPOSITORY = "https://host.example/autotag/tree/main"


@pytest.mark.parametrize(
    ("source", "written", "on_the_site"),
    [
        ("index.md", "[a](settings.md#amqp)", "[a](settings.md#amqp)"),
        ("index.md", "[a](../CHANGELOG.md)", "[a](CHANGELOG.md)"),
        ("index.md", "[a](../README.md#try-it)", "[a](readme.md#try-it)"),
        ("readme.md", "[a](docs/settings.md) ![b](docs/images/a.png)", "[a](settings.md) ![b](images/a.png)"),
        ("CHANGELOG.md", "[a](docs/decisions/README.md)", "[a](decisions/README.md)"),
        ("decisions/README.md", "[a](../settings.md)", "[a](../settings.md)"),
        ("decisions/README.md", "[`a`](../../worker/engine.py)", f"[`a`]({REPOSITORY}/worker/engine.py)"),
        ("index.md", "[a](https://example.org/b.md) [c](#d)", "[a](https://example.org/b.md) [c](#d)"),
    ],
)
def test_a_link_leads_to_the_same_on_the_site(source: str, written: str, on_the_site: str) -> None:
    assert rewritten(written, source, KNOWN, REPOSITORY) == on_the_site


def test_a_link_into_the_source_is_its_text_where_the_repository_is_not_known() -> None:
    assert rewritten("see [`a`](../worker/engine.py), twice", "index.md", KNOWN, "") == "see `a`, twice"


def test_a_link_to_nothing_is_a_warning_which_ends_a_strict_build(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rewritten("[a](../worker/none.py)", "index.md", KNOWN, REPOSITORY)
    assert "leads nowhere" in caplog.text


def test_every_page_is_in_the_navigation() -> None:
    navigation = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    pages = {file.relative_to(ROOT / "docs").as_posix() for file in ROOT.glob("docs/*.md")}
    assert pages - navigation == set()
    assert navigation - pages <= set(ROOT_PAGES.values()) | {"decisions/README.md", "examples/publishers/README.md"}

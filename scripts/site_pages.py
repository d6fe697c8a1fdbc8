"""What MkDocs does with this repository's pages: those of its root join the site, and links out of it become text.

A hook of `mkdocs.yml`. Links are written for a code host, relative to the file. On the site one to a page leads there;
one to a file of the source leads to the repository where `AUTOTAG_REPOSITORY` has its address (`https://…/tree/main`),
and else is the file's name alone. One to nothing ends the build.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
ROOT_PAGES = {
    "README.md": "readme.md",  # a README would be the first page
    **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")},
}
"""Pages of the root, and where they are on the site."""

LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)

_log = logging.getLogger("mkdocs.hooks.site_pages")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and give each decision its place in the navigation."""
    from mkdocs.structure.files import File

    for name, place in ROOT_PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    decisions: Any = next(entry["Decisions"] for entry in config.nav or [] if "Decisions" in entry)
    decisions[1:] = sorted(
        file.src_uri for file in files.documentation_pages() if re.match(r"decisions/\d", file.src_uri)
    )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page, but not what looks like one in code."""
    known = {file.src_uri for file in files}
    repository = os.environ.get("AUTOTAG_REPOSITORY", "").rstrip("/")
    parts = FENCE.split(markdown)
    return "".join(
        part if number % 2 else rewritten(part, page.file.src_uri, known, repository)
        for number, part in enumerate(parts)
    )


def rewritten(markdown: str, source: str, known: set[str], repository: str) -> str:
    """The text with its links as they are on the site; `source` is the page's place there."""
    folder = "" if source in ROOT_PAGES.values() else posixpath.join("docs", posixpath.dirname(source))

    def link(match: re.Match[str]) -> str:
        target, hash_mark, anchor = match["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))  # from the repository's root
        place = ROOT_PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if place in known:
            here = posixpath.dirname(source) or "."
            return f"{match['image']}[{match['text']}]({posixpath.relpath(place, here)}{hash_mark}{anchor})"
        if not (ROOT / path).exists():
            _log.warning("%s: the link to %s leads nowhere", source, match["target"])
        if repository:
            return f"{match['image']}[{match['text']}]({repository}/{path}{hash_mark}{anchor})"
        return match["text"]

    return LINK.sub(link, markdown)

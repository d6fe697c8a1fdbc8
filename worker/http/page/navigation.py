"""The tabs of the status page: one list, a line for each, in the order in which they are shown."""

from __future__ import annotations

from worker.http.page.markup import Html, h

OVERVIEW = "./"

TABS: tuple[tuple[str, str], ...] = (
    (OVERVIEW, "Overview"),
    ("results", "Results"),
    ("dead-letters", "Dead letters"),
    ("tenants", "Tenants"),
    ("settings", "Settings"),
)
"""The address of each tab, relative as all addresses of the page, and its name."""


def tabs(current: str) -> Html:
    """The row of tabs; `current` is the address of the one that is shown."""
    links = [
        h("a", name, href=path, aria_current="page" if path == current else None, class_="tab") for path, name in TABS
    ]
    return h("nav", links, aria_label="Pages", class_="tabs")

"""What the tabs are made of: tables, forms that filter by GET, and links from page to page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from worker.http.page.markup import Child, Html, h


def table(headings: Sequence[Child], rows: Sequence[Sequence[Child]], labelled_by: str, class_: str = "") -> Html:
    """A table. A narrow screen shows each row as a block, with the heading before each cell if that is text."""
    return h(
        "table",
        h("thead", h("tr", [h("th", heading, scope="col") for heading in headings])),
        h(
            "tbody",
            [
                h(
                    "tr",
                    h("th", row[0], scope="row"),
                    [
                        h("td", h("span", cell), data_head=heading if isinstance(heading, str) else None)
                        for heading, cell in zip(headings[1:], row[1:], strict=True)
                    ],
                )
                for row in rows
            ],
        ),
        aria_labelledby=labelled_by,
        class_=class_ or None,
    )


def address(path: str, values: Mapping[str, object], **changes: object) -> str:
    """A link to `path` with query parameters; those that are None or empty are left out."""
    pairs = {name: value for name, value in (dict(values) | changes).items() if value not in (None, "")}
    # A name that is not UTF-8 has lone surrogates, which no address can have.
    return f"{path}?{urlencode(pairs, errors='replace')}" if pairs else path


def filters(path: str, *fields: Child, is_filtered: bool, hidden: Mapping[str, str] | None = None) -> Html:
    """A form that asks for `path` with what is filled in."""
    return h(
        "form",
        fields,
        [h("input", type="hidden", name=name, value=value) for name, value in (hidden or {}).items() if value],
        h(
            "p",
            h("button", "Show", type="submit", class_="primary"),
            h("a", "Show all", href=path) if is_filtered else None,
            class_="submit",
        ),
        action=path,
        method="get",
        role="search",
        class_="filters",
    )


def text_field(name: str, label: str, value: str | None, placeholder: str | None = None) -> Html:
    """A field of a filter."""
    return h(
        "label",
        h("span", label),
        h("input", type="search", name=name, value=value or "", placeholder=placeholder, maxlength=300),
    )


def choice_field(name: str, label: str, value: str | None, choices: Sequence[tuple[str, str]]) -> Html:
    """A field with a few values, each with its words."""
    options = [h("option", words, value=each, selected=each == (value or "")) for each, words in choices]
    return h("label", h("span", label), h("select", options, name=name))


def paging(label: str, *, before: tuple[str, str] | None, after: tuple[str, str] | None, between: str) -> Html | None:
    """Links to the pages before and after this one, each as its words and its address."""
    if before is None and after is None:
        return None

    def link(page: tuple[str, str] | None, relation: str) -> Html:
        return h("span") if page is None else h("a", page[0], href=page[1], rel=relation)

    return h("nav", link(before, "prev"), h("span", between), link(after, "next"), aria_label=label, class_="paging")

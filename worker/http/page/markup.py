"""HTML by construction: whatever is put into an element is escaped, unless it is an element itself.

    h("p", "a < b", h("b", "!"), class_="note")   →   <p class="note">a &lt; b<b>!</b></p>

There is no template to forget an escape in, and mypy sees every name.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = Html | str | int | None | Iterable["Child"]
Attribute = str | int | float | bool | None

_VOID = frozenset(("img", "input", "link", "meta", "wbr"))
_DRAWN = frozenset(("circle", "line", "path", "rect"))
"""Shapes of SVG. They are closed at once: what follows one would otherwise be inside it."""


def h(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """An element. `class_` is written `class`, `aria_label` is written `aria-label`; None and False leave out."""
    opening = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}"
    if tag in _DRAWN:
        return Html(f"{opening}/>")
    return Html(f"{opening}>" if tag in _VOID else f"{opening}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """Elements and text, one after the other."""
    return Html("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    match child:
        case Html():
            return child
        case None:
            return ""
        case str() | int():
            return escape(str(child))
        case _:
            return join(*child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = _SPELT.get(name) or name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'


_SPELT = {"viewbox": "viewBox", "preserve_aspect_ratio": "preserveAspectRatio"}
"""SVG's own way of writing two of its attributes."""

"""HTML built from function calls: every child of an element is escaped, unless it is an element itself.

Characters that cannot be seen are shown as escapes, as everywhere: see worker/operations/printable.py.

    h("p", "a < b", h("b", "!"), class_="note")   →   <p class="note">a &lt; b<b>!</b></p>

There is no template in which escaping could be forgotten, and mypy checks every name.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from worker.operations.printable import printable_lines


class Html(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


Child = Html | str | int | None | Iterable["Child"]
Attribute = str | int | float | bool | None

_VOID = frozenset(("img", "input", "link", "meta", "wbr"))
_SHAPES = frozenset(("circle", "line", "path", "rect"))
"""SVG shapes. They are self-closing: the following element would otherwise be nested in them."""


def h(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """An element. `class_` becomes `class`, `aria_label` becomes `aria-label`; None and False omit the attribute."""
    opening = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}"
    if tag in _SHAPES:
        return Html(f"{opening}/>")
    return Html(f"{opening}>" if tag in _VOID else f"{opening}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """Elements and text concatenated; text is escaped."""
    return Html("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    match child:
        case Html():
            return child
        case None:
            return ""
        case str() | int():
            return escape(printable_lines(str(child)))
        case _:
            return join(*child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = _CAMEL_CASE.get(name) or name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'


_CAMEL_CASE = {"viewbox": "viewBox", "preserve_aspect_ratio": "preserveAspectRatio"}
"""SVG attribute names that are not written in lower case."""

"""Texts in settings that read values out of JSON, and addresses filled with these: checked when they are loaded.

Reading is JMESPath (https://jmespath.org/specification.html), an address is a URI template of RFC 6570. Both libraries
are imported by those settings alone that use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator


def _compiles(text: str) -> str:
    from worker.settings.jmespath_language import compiled

    try:
        compiled(text)
    except ValueError as error:
        raise ValueError(f"no JMESPath expression: {error}") from None
    return text


def expressions_in(tree: Any) -> Iterator[tuple[str, str]]:
    """The expressions in a tree of values, each with its place in it: texts that begin with one `=`."""
    if isinstance(tree, dict):
        inside: Iterable[tuple[str, Any]] = ((f".{name}", value) for name, value in tree.items())
    elif isinstance(tree, list):
        inside = ((f"[{number}]", value) for number, value in enumerate(tree))
    else:
        if isinstance(tree, str) and tree.startswith("=") and not tree.startswith("=="):
            yield "", tree[1:]
        return
    for place, value in inside:
        for below, text in expressions_in(value):
            yield place + below, text


def _tree_compiles(tree: Any) -> Any:
    for place, text in expressions_in(tree):
        try:
            _compiles(text)
        except ValueError as error:
            raise ValueError(f"{place.removeprefix('.')}: {error}" if place else str(error)) from None
    return tree


def _is_address(text: str) -> str:
    from uritemplate import URITemplate

    fixed = text.partition("{")[0]
    is_below = text.startswith(("/", "{/"))
    if not (is_below or fixed.startswith(("http://", "https://"))) or not text.isprintable() or " " in text:
        raise ValueError("it begins neither with / nor with http:// or https://, or holds a space")
    if fixed.startswith("http") and "/" not in fixed.partition("://")[2]:
        raise ValueError("scheme, host and port are not filled in")
    if text.count("{") != len(URITemplate(text).variables) or text.count("{") != text.count("}"):
        raise ValueError("a brace has no partner, or nothing in it")
    return text


Expression = Annotated[str, AfterValidator(_compiles)]
"""A JMESPath expression."""

AddressTemplate = Annotated[str, AfterValidator(_is_address)]
"""A path below the connection's `url`, or a whole http or https address; `{name}` is filled in, percent-encoded."""

ValueTree = Annotated[Any, AfterValidator(_tree_compiles)]
"""Anything that JSON has, with expressions in it."""

TableOfValues = Annotated[dict[str, Any], AfterValidator(_tree_compiles)]
"""As `ValueTree`, a table."""

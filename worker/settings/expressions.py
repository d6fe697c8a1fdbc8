"""Texts in settings that read values out of JSON, and addresses filled with these: checked when they are loaded.

Reading is JMESPath (https://jmespath.org/specification.html), an address is a URI template of RFC 6570. Both libraries
are imported by those settings alone that use them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _compiles(text: str) -> str:
    from jmespath import compile as compiled
    from jmespath.exceptions import JMESPathError

    try:
        compiled(text)
    except JMESPathError as error:
        raise ValueError(f"no JMESPath expression: {str(error).splitlines()[0]}") from error
    return text


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

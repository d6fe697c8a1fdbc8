"""Refuses JSON in which an object has a name twice (RFC 8259 section 4): each reader takes another one of the values.

What checks an event before it comes here may have seen the other one: another asset, another instance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from worker.messages.unreadable import FieldError

_LONG_VALUE = re.compile(rb'(?<!\\)"[A-Za-z0-9+/=]{1024,}"(?!\s*:)')
"""An image in base64: nothing to look at, and too large to copy."""

_SHORT_BYTES = 1 << 16
_STRING = re.compile(rb'"([^"]*)"(\s*:)?')
"""A string in JSON without escapes, where every quote begins or ends one; a colon behind it makes it a name."""

_LONGEST_NAME = 100
_MAXIMUM_NAMES = 3


class RepeatedNames(FieldError):
    """An object has names more than once; `names` are all of them, at any depth."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        shown = ", ".join(ascii(name[:_LONGEST_NAME]) for name in sorted(self.names)[:_MAXIMUM_NAMES])
        super().__init__(f"{shown}: given more than once in one object")


def refuse_repeated_names(body: bytes) -> None:
    """Raise RepeatedNames for JSON in which a name is repeated. What is not JSON passes: others say what is wrong."""
    if _has_each_name_once(body):
        return
    repeated: set[str] = set()

    def look(pairs: list[tuple[str, object]]) -> None:
        names = {name for name, _ in pairs}
        if len(names) < len(pairs):
            left = set(names)
            for name, _ in pairs:
                if name in left:
                    left.remove(name)
                else:
                    repeated.add(name)

    try:
        # Numbers are not made: one of many digits is an error of its own.
        text = _LONG_VALUE.sub(b'""', body).decode("utf-8", "surrogateescape")
        json.loads(text, strict=False, object_pairs_hook=look, parse_int=len, parse_float=len, parse_constant=len)
    except (ValueError, RecursionError):
        return
    if repeated:
        raise RepeatedNames(repeated)


def _has_each_name_once(body: bytes) -> bool:
    """Whether no name is in the whole body twice, as is so in nearly every event; found out in a third of the time.

    False too where that cannot be seen at once.
    """
    if len(body) > _SHORT_BYTES or b"\\" in body:
        return False
    names = [text for text, colon in _STRING.findall(body) if colon]
    return len(names) == len(set(names))

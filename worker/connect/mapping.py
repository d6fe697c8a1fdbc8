"""Reads values out of JSON by JMESPath, and writes them as trees of values and into addresses. No text templates.

All are compiled once, when the settings are loaded. Reading changes nothing and always ends: JMESPath has no loops over
state. A value that is missing is refused by the name of its setting and its expression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import uritemplate
from jmespath import exceptions

from worker.errors import CannotBeDone
from worker.settings.jmespath_language import OPTIONS, compiled

_MARK = "="
_DOTS = frozenset({".", ".."})
_SECONDS_AT_MOST = 253_402_300_799  # the end of the year 9999


class Missing(CannotBeDone):
    """What was said lacks a value, or has one of the wrong kind there."""

    def __init__(self, setting: str, why: str) -> None:
        super().__init__(f"{setting}: {why}", reason="mapping_missing")
        self.setting = setting


class JsonQuery:
    """One expression. `setting` is its name, for people."""

    def __init__(self, text: str, setting: str) -> None:
        self.text = text
        self.setting = setting
        self._compiled = compiled(text)

    def find(self, document: Any) -> Any:
        """The value; None where there is none. Raises Missing where a function gets what it can't work on."""
        try:
            return self._compiled.search(document, options=OPTIONS)
        except exceptions.JMESPathError as error:
            raise Missing(self.setting, f"`{self.text}` can't be read: {_first_line(error)}") from None
        except (TypeError, ValueError, RecursionError, ArithmeticError) as error:
            raise Missing(self.setting, f"`{self.text}` can't be read: {type(error).__name__}") from None

    def text_in(self, document: Any) -> str | None:
        """The value as text: a text that is not blank, or a whole number; None for none.

        Raises Missing for what is neither.
        """
        value = self.find(document)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise Missing(self.setting, f"`{self.text}` is {_kind(value)}, not a text")
        return str(value)

    def needed_text_in(self, document: Any) -> str:
        """As `text_in`, but None raises Missing."""
        found = self.text_in(document)
        if found is None:
            raise Missing(self.setting, f"there is nothing at `{self.text}`")
        return found

    def moment_in(self, document: Any) -> str | None:
        """A time as text in RFC 3339, from such a text or seconds since 1970. What is neither is None."""
        value = self.find(document)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _SECONDS_AT_MOST:
            return datetime.fromtimestamp(value, UTC).isoformat()
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            return None
        return None if moment is None else moment.replace(tzinfo=moment.tzinfo or UTC).isoformat()


class Tree:
    """A tree of values. A text in it that begins with `=` is an expression, `==` begins a text with one `=`."""

    def __init__(self, tree: Any, setting: str) -> None:
        self._make = _compiled(tree, setting)

    def of(self, scope: Mapping[str, Any]) -> Any:
        """The tree with the values of `scope`. Raises Missing where one is not there."""
        return self._make(scope)


class UrlTemplate:
    """An address that is filled in, percent-encoded: `{name}` by one value, `{/name*}` by a path of several.

    `base` is what a path lies below.
    """

    def __init__(self, template: str, base: str, setting: str) -> None:
        self._template = uritemplate.URITemplate(template)
        self._base = base.rstrip("/") if template.startswith(("/", "{/")) else ""
        self._setting = setting
        self.names = frozenset(str(name) for name in self._template.variable_names)

    def of(self, scope: Mapping[str, Any]) -> str:
        """The address. Raises Missing where a value is missing, empty, or would lead elsewhere."""
        values = {name: self._value(name, scope.get(name)) for name in self.names}
        return self._base + str(self._template.expand(values))

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._part(name, each) for each in value]
        return self._part(name, value)

    def _part(self, name: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            raise Missing(self._setting, f"there is no value for {{{name}}}, but {_kind(value)}")
        text = str(value)
        if text in _DOTS:
            raise Missing(self._setting, f"{{{name}}} is {text!r}, which in a path means another place")
        return text


def origin(url: str) -> str:
    """Scheme, host and port of an address, for people."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _compiled(tree: Any, setting: str) -> Callable[[Mapping[str, Any]], Any]:
    if isinstance(tree, Mapping):
        inside = {name: _compiled(value, f"{setting}.{name}") for name, value in tree.items()}
        return lambda scope: {name: make(scope) for name, make in inside.items()}
    if isinstance(tree, list | tuple):
        items = [_compiled(value, f"{setting}[{number}]") for number, value in enumerate(tree)]
        return lambda scope: [make(scope) for make in items]
    if isinstance(tree, str) and tree.startswith(_MARK):
        if tree.startswith(_MARK * 2):
            return lambda _scope: tree[1:]
        reading = JsonQuery(tree[1:], setting)

        def read(scope: Mapping[str, Any]) -> Any:
            value = reading.find(scope)
            if value is None:
                raise Missing(setting, f"there is nothing at `{reading.text}`")
            return value

        return read
    return lambda _scope: tree


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", bool: "true or false", float: "a number with a point", str: "empty"}
    return "nothing" if value is None else kinds.get(type(value), type(value).__name__)

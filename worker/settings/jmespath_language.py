"""JMESPath as the settings use it: with one function more, and checked for calls that can never work.

JMESPath itself finds out only while it reads a document that a function does not exist. Imported by those settings
alone that have expressions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

import jmespath
from jmespath import exceptions, functions, parser


class _Functions(functions.Functions):
    """Functions besides those of JMESPath itself."""

    @functions.signature({"types": ["string"]}, {"types": ["string"]})
    def _func_split(self, separator: str, text: str) -> list[str]:
        """The parts of a text between the separators; without empty ones."""
        return [part for part in text.split(separator) if part] if separator else [text]


OPTIONS: Final = jmespath.Options(custom_functions=_Functions())


def compiled(text: str) -> parser.ParsedResult:
    """The expression, to be searched with `OPTIONS`. Raises ValueError with what is wrong with it, on one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PendingDeprecationWarning)
            found: parser.ParsedResult = jmespath.compile(text)
        _check_calls(found.parsed)
    except PendingDeprecationWarning:
        raise ValueError("what is between backticks has to be JSON; a text stands in single quotes") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except exceptions.JMESPathError as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None
    return found


def _check_calls(node: Mapping[str, Any]) -> None:
    if node["type"] == "function_expression":
        name, given = node["value"], len(node["children"])
        table = _Functions.FUNCTION_TABLE
        if name not in table:
            raise ValueError(f"there is no function {name}()")
        signature = table[name]["signature"]
        is_variadic = bool(signature) and bool(signature[-1].get("variadic"))
        if given < len(signature) or (given > len(signature) and not is_variadic):
            least = "at least " if is_variadic else ""
            raise ValueError(f"{name}() takes {least}{len(signature)} values, not {given}")
    for child in node["children"]:
        if isinstance(child, Mapping):
            _check_calls(child)

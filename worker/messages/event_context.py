"""`data.context`: an object of the publisher's own that comes back in the result as it was.

What connects to a document management system keeps there what it needs to write the tags back (bucket, version, site),
and so needs no memory of its own. Nobody here looks into it: it is bounded in size and depth, and has to be what every
JSON reader takes.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from pydantic import PlainValidator, TypeAdapter, ValidationError, WithJsonSchema

MAXIMUM_CONTEXT_BYTES: Final = 4096
"""Of its JSON without spaces, in UTF-8."""

MAXIMUM_CONTEXT_DEPTH: Final = 16
"""Objects and lists in one another, the context itself included."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def context_of(value: object) -> dict[str, Any] | None:
    """The context in an event's data; None for `null` and an empty text. Raises ValueError, which quotes nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - pydantic lets a TypeError through
    if _is_deeper(value, MAXIMUM_CONTEXT_DEPTH):
        raise ValueError(f"is nested more than {MAXIMUM_CONTEXT_DEPTH} deep")
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        raise ValueError("holds a number that JSON has no form for, or of too many digits") from None
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("holds what is not text in UTF-8") from None
    if size_bytes > MAXIMUM_CONTEXT_BYTES:
        raise ValueError(f"has {size_bytes:,} bytes as JSON, at most {MAXIMUM_CONTEXT_BYTES:,} are carried")
    return value


def _is_deeper(value: object, maximum: int) -> bool:
    level: list[object] = [value]
    for _ in range(maximum):
        level = [inner for each in level for inner in _inside(each)]
    return any(isinstance(each, dict | list) for each in level)


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


EventContext = Annotated[
    dict[str, Any] | None,
    PlainValidator(context_of),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "object",
                    "description": "At most 4096 bytes as JSON without spaces, in UTF-8, and 16 levels deep.",
                },
                {"type": "string", "pattern": r"^\s*$", "description": "Counts as `null`."},
                {"type": "null"},
            ]
        }
    ),
]

_CONTEXT: TypeAdapter[dict[str, Any] | None] = TypeAdapter(EventContext)


def context_or_none(value: object) -> dict[str, Any] | None:
    """The context if it can be used, for the result of an event that cannot."""
    try:
        return _CONTEXT.validate_python(value)
    except ValidationError:
        return None

"""The field types of messages, with their limits. Everything here ends up in the JSON Schemas."""

from __future__ import annotations

import binascii
import re
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from worker.messages.oddities import INFORMATIVE, NUMBER_AS_TEXT, absent_is

NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f]+$"
"""Keeps line breaks out of logs and NUL out of file names."""

MAXIMUM_ID_CHARACTERS: Final = 1024
AssetId = Annotated[str, Field(max_length=MAXIMUM_ID_CHARACTERS, pattern=NO_CONTROL_CHARACTERS)]
InstanceName = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Used in routing keys, metric labels and table names of the settings, hence the narrow alphabet."""
_INSTANCE_NAME: TypeAdapter[str] = TypeAdapter(InstanceName)

ShortText = Annotated[str, Field(max_length=1024, pattern=NO_CONTROL_CHARACTERS)]
FilePath = Annotated[str, Field(max_length=4096, pattern=NO_CONTROL_CHARACTERS)]
_FILE_PATH: TypeAdapter[str] = TypeAdapter(FilePath)
_WHY_NO_PATH = {
    "string_unicode": "its name is not UTF-8",
    "string_pattern_mismatch": "its name holds a control character, such as a line break",
    "string_too_long": "its path has more than 4096 characters",
}
Url = Annotated[str, Field(max_length=8192, pattern=NO_CONTROL_CHARACTERS, json_schema_extra={"format": "uri"})]
TagName = Annotated[str, Field(max_length=1024)]

_EMPTY: Final[dict[str, Any]] = {"type": "string", "pattern": r"^\s*$", "description": "Counts as `null`."}
_IGNORED: Final[dict[str, Any]] = {"description": "Anything else is ignored."}


_NOTHING: Final[dict[str, Any]] = {"description": "Counts as `null`.", "enum": [[], {}]}


def _schema_of(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema()


def _either(*schemas: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(schemas)})


_WHOLE_NUMBER: Final[dict[str, Any]] = {"type": "integer", "description": "Read as the text of its digits."}
_NULL: Final[dict[str, Any]] = {"type": "null"}

GivenAssetId = Annotated[AssetId, NUMBER_AS_TEXT, _either(_schema_of(AssetId), _WHOLE_NUMBER)]
GivenEventId = Annotated[ShortText, NUMBER_AS_TEXT, _either(_schema_of(ShortText), _WHOLE_NUMBER)]
"""An id that decides, as a publisher may write it."""


GivenInstance = Annotated[
    InstanceName, NUMBER_AS_TEXT, _either(_schema_of(InstanceName), _WHOLE_NUMBER | {"minimum": 0}, _EMPTY, _NULL)
]

Note = Annotated[ShortText | None, INFORMATIVE, NUMBER_AS_TEXT, _either(_schema_of(ShortText), _NULL, _IGNORED)]
"""A text that only informs: one that cannot be used is left out."""

Moment = Annotated[
    AwareDatetime | None,
    Field(strict=False),
    INFORMATIVE,
    _either({"type": "string", "format": "date-time"}, _NULL, _IGNORED),
]
"""A time that only informs. One without a time zone could be half a day off, and is left out."""

Tags = Annotated[
    tuple[TagName, ...],
    Field(strict=False),
    AfterValidator(lambda tags: tuple(tag for tag in tags if tag.strip())),
    absent_is(()),
    _either({"type": "array", "items": _schema_of(TagName)}, _EMPTY, _NULL),
]
"""Names of tags. An empty one is none: it is what splitting an empty text makes."""

Flag = Annotated[bool, absent_is(default=False), _either({"type": "boolean"}, _EMPTY, _NULL)]


def why_no_path(text: str) -> str | None:
    """Why an event cannot name this path, in words; None when it can. File names are bytes, an event is UTF-8 text."""
    try:
        _FILE_PATH.validate_python(text)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["type"]
        return _WHY_NO_PATH.get(why, why)
    return None


def is_instance_name(text: str) -> bool:
    """Whether an event, and a table of the settings, may use this name for an instance."""
    try:
        _INSTANCE_NAME.validate_python(text)
    except ValidationError:
        return False
    return True


def decode_base64(value: object) -> bytes:
    """Decode base64 text strictly: no line breaks, no other alphabet, nothing after the padding.

    Raises ValueError.
    """
    if value == "":
        raise ValueError("is empty: there is no image in it")
    if not isinstance(value, str):
        raise ValueError("must be base64 text (RFC 4648 section 4, padded, without line breaks)")  # noqa: TRY004 - pydantic lets a TypeError through
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:
        raise ValueError(f"is not base64 (RFC 4648 section 4, padded, without line breaks): {error}") from None


Base64Bytes = Annotated[
    bytes,
    PlainValidator(decode_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "minLength": 4}),
]

GivenPath = Annotated[FilePath | None, _either(_schema_of(FilePath), _NULL, _EMPTY, _NOTHING)]
GivenUrl = Annotated[Url | None, _either(_schema_of(Url), _NULL, _EMPTY, _NOTHING)]
GivenBase64 = Annotated[Base64Bytes | None, _either(_schema_of(Base64Bytes), _NULL, _EMPTY, _NOTHING)]
"""Where the image is, among which all but one have nothing in them."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LONGEST_TRACESTATE = 512


def trace_parent(value: object) -> str | None:
    """A valid W3C `traceparent`, or None for anything else: a malformed trace must not stop an event."""
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


def trace_state(value: object) -> str | None:
    """A W3C `tracestate` of at most the length that every implementation must propagate, or None."""
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_TRACESTATE and value.isascii() else None


_OPTIONAL_TEXT = WithJsonSchema({"type": ["string", "null"]})
TraceParent = Annotated[str | None, PlainValidator(trace_parent), _OPTIONAL_TEXT]
TraceState = Annotated[str | None, PlainValidator(trace_state), _OPTIONAL_TEXT]

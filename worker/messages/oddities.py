"""What is not as described in an event, and yet no reason to refuse it.

Some fields of an event decide about it: asset id, instance, content, existing tags, whether it is temporary, and id,
source and type of the event. One of these that is wrong refuses the event. The others inform people: one that is wrong
is left out. An empty text counts as `null`, which is what serializers mean by it, and a whole number where a text
belongs is read as its digits. Each of these is noted, so that it can be counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BeforeValidator, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

Oddity = Literal["empty", "number", "unusable", "implausible", "byte_order_mark"]

INFORMATIVE_FIELDS: Final = ("file_name", "mime_type", "site", "locale", "time")
OPTIONAL_FIELDS: Final = ("instance", "existing_tags", "temporary")
"""Those that decide, and may be left out."""
CONTENT_FIELDS: Final = ("path", "url", "base64")
NUMERIC_FIELDS: Final = ("asset_id", "instance", "id", "file_name", "mime_type", "site", "locale")
"""Those that may be a whole number."""

_LARGEST_EXACT_FLOAT: Final = 2.0**53


@dataclass(frozen=True, slots=True)
class OddField:
    """A field that was not as described. `field` is the name of a field of ours, never a publisher's."""

    field: str
    why: Oddity


def note(info: ValidationInfo, why: Oddity, field: str | None = None) -> None:
    """Note an oddity in the list that validation was given as its context; without one, nobody counts."""
    if isinstance(info.context, list):
        info.context.append(OddField(field or info.field_name or "event", why))


def is_empty(value: object) -> bool:
    """Whether a value is what serializers write for a field that has none, apart from `null`."""
    return not value.strip() if isinstance(value, str) else value in ({}, [])


def _or_nothing(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    if value is None:
        return None
    if is_empty(value):
        note(info, "empty")
        return None
    try:
        return handler(value)
    except ValidationError:
        note(info, "unusable")
        return None


INFORMATIVE = WrapValidator(_or_nothing)
"""A field that may be anything: what cannot be used becomes None."""


def _digits(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_EXACT_FLOAT:
        value = int(value)  # 5.0 is a whole number in JSON
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    note(info, "number")
    return str(value)


NUMBER_AS_TEXT = BeforeValidator(_digits)
"""A text that some systems write as a whole number, as their ids are numbers."""


def absent_is(default: object) -> Any:
    """An optional field where `null` and an empty text mean the same as leaving it out."""

    def or_default(value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return default
        if isinstance(value, str) and is_empty(value):
            note(info, "empty")
            return default
        return value

    return BeforeValidator(or_default)

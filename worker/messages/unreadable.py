"""The error for an event that cannot be parsed: the reason, the faulty fields, and the asset it seems to concern."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.errors import CannotBeDone
from worker.messages.events import DEFAULT_INSTANCE
from worker.messages.oddities import NUMERIC_FIELDS
from worker.messages.results import Result

_MAXIMUM_FAULTS = 3
_MAXIMUM_FAULT_LENGTH = 300

_MESSAGES = {"string_unicode": "holds what is not text in UTF-8"}
"""In place of pydantic's, by its type of error."""

_JSON_TYPES: dict[type, str] = {
    bool: "true or false",
    float: "a number with a fraction, or not exact",
    type(None): "null",
    list: "an array",
    dict: "an object",
}


class UnreadableEvent(CannotBeDone):
    """No event could be read from a message. The attributes hold what could still be recovered from it."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        asset_id: str | None = None,
        event_id: str | None = None,
        instance: str | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, reason=reason)
        self.asset_id = asset_id
        self.event_id = event_id
        self.instance = instance
        self.context = context

    def result(self) -> Result:
        """The failed result to publish. Raises ValueError if the event's `asset_id` could not be read."""
        if self.asset_id is None:
            raise ValueError("a result needs an asset id, and none could be read")
        return Result(
            asset_id=self.asset_id,
            instance=self.instance or DEFAULT_INSTANCE,
            event_id=self.event_id,
            status="failed",
            reason=self.reason,
            message=str(self),
            context=self.context,
        )


class FieldError(ValueError):
    """A fault that is detected outside the event's models. The text begins with the name of the faulty field."""


def explain(error: ValidationError | FieldError, expected_type: str) -> tuple[str, str]:
    """The reason, and the faults for people. No value is quoted except the event's type: it may be huge or secret."""
    if isinstance(error, FieldError):
        return "event_invalid", str(error)
    faults = error.errors(include_url=False, include_context=False)
    for fault in faults:
        if fault["type"] == "json_invalid":
            return "event_not_json", fault["msg"]
        if fault["loc"] == ("type",) and fault["type"] == "literal_error":
            return "event_type_unknown", f"type: {str(fault['input'])[:100]!r} is not known, only {expected_type!r}"
    lines = [f"{'.'.join(map(str, fault['loc'])) or 'event'}: {_fault(fault)}" for fault in faults[:_MAXIMUM_FAULTS]]
    shown = [line[:_MAXIMUM_FAULT_LENGTH] for line in lines]
    if len(faults) > _MAXIMUM_FAULTS:
        shown.append(f"and {len(faults) - _MAXIMUM_FAULTS} more")
    return "event_invalid", "; ".join(shown)


def _fault(fault: ErrorDetails) -> str:
    """What is wrong with a field, without its value."""
    if fault["type"] == "string_type" and (found := _JSON_TYPES.get(type(fault["input"]))) is not None:
        field = fault["loc"][-1] if fault["loc"] else None
        return f"must be {'a text or a whole number' if field in NUMERIC_FIELDS else 'a text'}, and is {found}"
    return _MESSAGES.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")

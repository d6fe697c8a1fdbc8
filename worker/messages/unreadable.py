"""What is said about an event that cannot be read: a reason, the fields at fault, and whose event it seems to be."""

from __future__ import annotations

from pydantic import ValidationError

from worker.errors import CannotBeDone
from worker.messages.events import DEFAULT_INSTANCE
from worker.messages.results import Result

_MOST_FAULTS_TOLD = 3
_LONGEST_FAULT = 300


class UnreadableEvent(CannotBeDone):
    """No event could be read from a message. What could be told of it all the same is in the attributes."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        asset_id: str | None = None,
        event_id: str | None = None,
        instance: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason)
        self.asset_id = asset_id
        self.event_id = event_id
        self.instance = instance

    def result(self) -> Result:
        """The failed result that the DMS gets. Only for an event whose `asset_id` could be read."""
        if self.asset_id is None:
            raise ValueError("a result needs an asset id, and none could be read")
        return Result(
            asset_id=self.asset_id,
            instance=self.instance or DEFAULT_INSTANCE,
            event_id=self.event_id,
            status="failed",
            reason=self.reason,
            message=str(self),
        )


class FieldError(ValueError):
    """A fault in an event that is found outside its models. The text begins with the field at fault."""


def explain(error: ValidationError | FieldError, expected_type: str) -> tuple[str, str]:
    """The reason and the faults for people. Of the values only the type is shown: others may be huge or secret."""
    if isinstance(error, FieldError):
        return "event_invalid", str(error)
    faults = error.errors(include_url=False, include_context=False)
    for fault in faults:
        if fault["type"] == "json_invalid":
            return "event_not_json", fault["msg"]
        if fault["loc"] == ("type",) and fault["type"] == "literal_error":
            return "event_type_unknown", f"type: {str(fault['input'])[:100]!r} is not known, only {expected_type!r}"
    told = [
        f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg'].removeprefix('Value error, ')}"[:_LONGEST_FAULT]
        for fault in faults[:_MOST_FAULTS_TOLD]
    ]
    if len(faults) > _MOST_FAULTS_TOLD:
        told.append(f"and {len(faults) - _MOST_FAULTS_TOLD} more")
    return "event_invalid", "; ".join(told)

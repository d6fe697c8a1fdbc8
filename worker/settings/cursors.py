"""Cursors of listings: what the items of a system are sorted by, as something to compare."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

NOW = "now"
_SECONDS_AT_MOST = 253_402_300_799  # the end of the year 9999


class Cursor(NamedTuple):
    """A time (seconds since 1970), or a number. Compare only two of one kind."""

    is_time: bool
    value: float

    @classmethod
    def of(cls, text: str) -> Cursor:
        """Raises ValueError for what is neither: a time without an offset is in UTC, numbers are finite."""
        try:
            return cls(False, int(text))  # never as a float: ids of 64 bits would fall together
        except ValueError:
            pass
        try:
            number = float(text)
        except ValueError:
            moment = datetime.fromisoformat(text)
            return cls(True, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
        if not math.isfinite(number):
            raise ValueError(f"{text} is no number to sort by")
        return cls(False, number)


def moment_text(seconds: float) -> str:
    """A time as a cursor: whole seconds, rounded down, as more systems take these than fractions."""
    whole = min(max(seconds, 0), _SECONDS_AT_MOST)
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(whole))).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_cursor(text: str) -> str:
    """The text as it is. Raises ValueError with what to write in its place, if it is no cursor."""
    try:
        Cursor.of(text)
    except ValueError:
        raise ValueError("write a time as in RFC 3339, or a number") from None
    return text


def _as_begin(text: str) -> str:
    return text if text == NOW else as_cursor(text)


CursorOrNow = Annotated[str, AfterValidator(_as_begin)]
"""Where a first listing begins: `now`, or a cursor."""

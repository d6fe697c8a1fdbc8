"""How long an event waited in its queue, from what its publisher wrote about when it was sent."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from worker.messages.oddities import OddField

_YEAR_2000_S: Final = 946_684_800.0
_A_DAY_S: Final = 86_400.0
_AMQP_RESOLUTION_S: Final = 1.0


def queue_wait(
    timestamp: object, uploaded_at: datetime | None, *, received_at_s: float
) -> tuple[float | None, tuple[OddField, ...]]:
    """The wait in seconds, or None where nobody can know it, and which times were left out as implausible.

    `timestamp` is AMQP's, the second in which the message was sent. `uploaded_at` is the event's own `time`: exact, and
    perhaps that of an upload long ago, so it is used where it lies in the same second or there is nothing else. A time
    before 2000 or after tomorrow is no time (0001-01-01 is what some systems write for none, milliseconds lead to the
    year 58000); one such wait in a histogram would outweigh a million others. `received_at_s` is Unix time.
    """
    implausible = []
    sent_s = float(timestamp) if isinstance(timestamp, int) and not isinstance(timestamp, bool) else None
    if sent_s is not None and not _is_plausible(sent_s, received_at_s):
        implausible.append(OddField("timestamp", "implausible"))
        sent_s = None
    exact_s = uploaded_at.timestamp() if uploaded_at is not None else None
    if exact_s is not None and not _is_plausible(exact_s, received_at_s):
        implausible.append(OddField("time", "implausible"))
        exact_s = None
    if sent_s is None or (exact_s is not None and 0 <= exact_s - sent_s < _AMQP_RESOLUTION_S):
        sent_s = exact_s
    return None if sent_s is None else max(0.0, received_at_s - sent_s), tuple(implausible)


def _is_plausible(moment_s: float, now_s: float) -> bool:
    return _YEAR_2000_S <= moment_s < now_s + _A_DAY_S

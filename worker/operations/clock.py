"""The one way in which a moment is written for people: ISO 8601 in UTC, to the second, as in the log.

What is on the page, in a command's output and in a dead letter can be laid beside a line of the log of any worker.
"""

from __future__ import annotations

from datetime import UTC, datetime


def written(moment: datetime) -> str:
    """`2026-05-17T12:30:15+00:00`. The moment has a time zone, any."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")

"""Parses the `Retry-After` header: how long a host asks clients to wait."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime

MAXIMUM_RETRY_AFTER_S = 24 * 3600.0
"""A longer wait is cut to a day: it is more likely a mistake than meant."""


def retry_after_s(header: str | None, *, now_s: float | None = None) -> float:
    """Seconds to wait, from either form of RFC 9110 section 10.2.3 (seconds or a date); 0 without a usable header.

    `now_s` is the wall-clock time, in seconds since the epoch, that a date is compared with; by default now.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text[:9])
    else:
        wait_s = _seconds_until(text, time.time() if now_s is None else now_s)
    return min(max(wait_s, 0.0), MAXIMUM_RETRY_AFTER_S)


def _seconds_until(date: str, now_s: float) -> float:
    try:
        until = parsedate_to_datetime(date)
        return until.replace(tzinfo=until.tzinfo or UTC).timestamp() - now_s  # HTTP's dates are in UTC
    except (ValueError, TypeError, OverflowError):
        return 0.0

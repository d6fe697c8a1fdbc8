"""The `Retry-After` header: how long a service asks to be left alone."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

MAXIMUM_RETRY_AFTER_S = 24 * 3600.0
"""More than a day is not believed."""


def retry_after_s(header: str | None, *, now_s: float | None = None) -> float:
    """Seconds to wait, from either form of RFC 9110 section 10.2.3 (seconds or a date); 0 without a usable header.

    `now_s` is the wall clock in seconds since the epoch, by which a date is judged.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text[:9])
    else:
        wait_s = _until(text, time.time() if now_s is None else now_s)
    return min(max(wait_s, 0.0), MAXIMUM_RETRY_AFTER_S)


def _until(date: str, now_s: float) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - now_s
    except (ValueError, TypeError, OverflowError):
        return 0.0

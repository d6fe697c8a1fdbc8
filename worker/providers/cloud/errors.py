"""The passing troubles of a service, told apart by what they mean for the next call.

All are `TryLater`, which is what the pipeline sees of them once the retries in place are used up.
"""

from __future__ import annotations

from worker.errors import TryLater


class ServiceFailed(TryLater):
    """No usable answer: connection, timeout, 408, 5xx, garbage. Tried again in place; counts towards the circuit."""


class RateLimited(TryLater):
    """The service is well and asks for fewer calls (429). Tried again in place; says nothing against the circuit."""


class CallNotMade(TryLater):
    """The service failed too often lately, or asked for a long rest, so it was left alone. Not tried again in place."""


TIMED_OUT = "timed_out"
UNREACHABLE = "unreachable"
CONNECTION_LOST = "connection_lost"
GARBLED_ANSWER = "garbled_answer"

MAY_HAVE_BEEN_BILLED = frozenset({TIMED_OUT, CONNECTION_LOST, GARBLED_ANSWER})
"""Reasons that leave open whether the service did the work. Calls that ended so stay counted in the budget."""


def transient_error(service: str, status: int, after_s: float, said: str) -> TryLater | None:
    """The error for an HTTP status that says no more than "not now"; None for every other status."""
    if status == 429:
        return RateLimited(f"{service} asks for fewer calls (HTTP 429): {said}", reason="quota_exhausted", after_s=after_s)
    if status == 408 or status >= 500:
        return ServiceFailed(f"{service} failed with HTTP {status}: {said}", reason="service_failed", after_s=after_s)
    return None

"""Transient errors of a service, distinguished by what they mean for the next call.

All are `TryLater`: the pipeline sees them as that once the retries in place are used up.
"""

from __future__ import annotations

from worker.errors import TryLater


class ServiceFailed(TryLater):
    """No usable response: connection, timeout, 408, 5xx, garbage. Retried in place; counts towards the circuit."""


class RateLimited(TryLater):
    """The service is healthy but asks for fewer calls (429). Retried in place; does not count towards the circuit."""


class CallNotMade(TryLater):
    """The circuit is open or the service asked for a long pause, so no call was made. Not retried in place."""


# The reasons of ServiceFailed that are decided in more than one module.
TIMED_OUT = "timed_out"
UNREACHABLE = "unreachable"
CONNECTION_LOST = "connection_lost"
GARBLED_ANSWER = "garbled_answer"

MAY_HAVE_BEEN_BILLED = frozenset({TIMED_OUT, CONNECTION_LOST, GARBLED_ANSWER})
"""Reasons that leave open whether the service did the work. Calls with these outcomes stay counted in the budget."""


def transient_error(service: str, status: int, after_s: float, message: str) -> TryLater | None:
    """The error for an HTTP status that means "not now" (429, 408, 5xx); None for every other status.

    `message` is the service's own, without the key; `after_s` the wait that it asked for, 0 without one.
    """
    if status == 429:
        return RateLimited(
            f"{service} asks for fewer calls (HTTP 429): {message}", reason="quota_exhausted", after_s=after_s
        )
    if status == 408 or status >= 500:
        return ServiceFailed(
            f"{service} failed with HTTP {status}: {message}", reason="service_failed", after_s=after_s
        )
    return None

"""Transient errors of a service, distinguished by what they mean for the next call.

All are `TryLater`: the pipeline sees them as that once the retries in place are used up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from worker.errors import AutotagError, TryLater

_VARYING = re.compile(r"\S*\d\S*")


class ServiceFailed(TryLater):
    """No usable response: connection, timeout, 408, 5xx, garbage. Retried in place; counts towards the circuit."""


class NotTried(TryLater):
    """The service has done nothing for the image, so this is no attempt of the event."""

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0) -> None:
        super().__init__(message, reason=reason, after_s=after_s, counted=False)


class RateLimited(NotTried):
    """The service is healthy but asks for fewer calls (429). Retried in place; does not count towards the circuit."""


class CallNotMade(NotTried):
    """A limit of our own, an open circuit or a pause kept the call from being made. Not retried in place."""


# The reasons of ServiceFailed that are decided in more than one module.
TIMED_OUT = "timed_out"
UNREACHABLE = "unreachable"
CONNECTION_LOST = "connection_lost"
GARBLED_ANSWER = "garbled_answer"

NOT_WANTED = "not_wanted"
"""The reason of a call that was not made because nobody waited for its answer any more."""

MAY_HAVE_BEEN_BILLED = frozenset({TIMED_OUT, CONNECTION_LOST, GARBLED_ANSWER})
"""Reasons that leave open whether the service did the work. Calls with these outcomes stay counted in the budget."""


@contextmanager
def answer_read(service: str) -> Iterator[None]:
    """The net around reading a service's answer: whatever a field of the wrong type leads to is a garbled answer."""
    try:
        yield
    except (AutotagError, MemoryError):
        raise
    except Exception as error:
        raise ServiceFailed(
            f"{service} sent an answer that cannot be read ({type(error).__name__})", reason=GARBLED_ANSWER
        ) from error


def transient_error(service: str, status: int, after_s: float, message: str) -> TryLater | None:
    """The error for an HTTP status that means "not now" (429, 408, 5xx); None for every other status.

    `message` is the service's own, without the key; `after_s` the wait that it asked for, 0 without one.
    """
    message = steady(message)
    if status == 429:
        return RateLimited(
            f"{service} asks for fewer calls (HTTP 429): {message}", reason="quota_exhausted", after_s=after_s
        )
    if status == 408 or status >= 500:
        return ServiceFailed(
            f"{service} failed with HTTP {status}: {message}", reason="service_failed", after_s=after_s
        )
    return None


def steady(text: str) -> str:
    """A service's text without its numbers: waits, times and request ids make equal failures look different.

    One message id stands for one set of bytes, and what is said here becomes a part of a result.
    """
    return _VARYING.sub("…", text)


def stopping() -> TryLater:
    """The error for a call that was broken off because the service stops: nobody knows how it would have ended."""
    return TryLater("the service is stopping; the call was broken off", reason="stopping", counted=False)


def copy_of(error: BaseException) -> BaseException:
    """An equal error: a shared one would collect the traceback of every place where it is raised.

    `copy.copy` does not work here: it calls the constructor with the message alone.
    """
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    return copied

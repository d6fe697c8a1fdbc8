"""The errors of Autotag: one class for each decision that a caller makes.

Library errors are translated into one of these where they are caught. `reason` is a short fixed word for metrics and
programs (`image_truncated`); the message is for people and says what happened, to which asset, and what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import Final


class AutotagError(Exception):
    """The base class of every error that Autotag raises deliberately."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Misconfigured(AutotagError):
    """The operator must change something before this can work: refuse to start, or mark the provider and continue."""

    def __init__(self, message: str, *, reason: str = "misconfigured") -> None:
        super().__init__(message, reason=reason)


class CannotBeDone(AutotagError):
    """This event or image can never succeed: publish a `failed` result and dead-letter the event."""


class TryLater(AutotagError):
    """It may succeed later: publish the event to the delayed retry queues. `after_s` is the shortest sensible delay.

    `counted` is whether that uses up an attempt of the event. Waiting for a limit of our own (a rate, an open circuit,
    a share of what is in hand) does not: the event has not been tried.
    """

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0, counted: bool = True) -> None:
        super().__init__(message, reason=reason)
        self.after_s = after_s
        self.counted = counted


class Unavailable(AutotagError):
    """The event is fine, but what would process it is disabled or out of order: the event waits.

    `after_s` is the shortest sensible wait, if it is known (until a budget renews).
    """

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0) -> None:
        super().__init__(message, reason=reason)
        self.after_s = after_s


class ResourceExhausted(AutotagError):
    """This machine has run out of descriptors, memory, threads or space: hold the event and try again, uncounted."""

    def __init__(self, message: str, *, reason: str = "resources_exhausted") -> None:
        super().__init__(message, reason=reason)


_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS})
_NO_THREAD: Final = "can't start new thread"  # CPython's words for EAGAIN of pthread_create
_MAXIMUM_CAUSES: Final = 8


def exhausted(error: BaseException, *, also: Collection[int] = ()) -> ResourceExhausted | None:
    """The error for a failure that means that this machine has run out of something; None for any other failure.

    What `error` was raised from counts too: network libraries wrap the system's error more than once. `also` names
    further error numbers that mean the same where they occurred, as EAGAIN does where a process is started.
    """
    cause: BaseException | None = error
    for _ in range(_MAXIMUM_CAUSES):
        match cause:
            case None:
                return None
            case ResourceExhausted():
                return cause
            case BaseExceptionGroup():
                return next((found for each in cause.exceptions if (found := exhausted(each, also=also))), None)
            case OSError() if cause.errno in _SHORTAGES or cause.errno in also:
                return ResourceExhausted(f"this machine, or a limit of this process, is exhausted: {cause.strerror}")
            case MemoryError():
                return ResourceExhausted("this machine has run out of memory")
            case RuntimeError() if _NO_THREAD in str(cause):
                return ResourceExhausted("this machine has run out of threads")
        cause = cause.__cause__
    return None

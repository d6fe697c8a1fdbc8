"""The errors of Autotag: one class for each decision that a caller makes.

Library errors are translated into one of these where they are caught. `reason` is a short fixed word for metrics and
programs (`image_truncated`); the message is for people and says what happened, to which asset, and what to do.
"""

from __future__ import annotations


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
    """It may succeed later: publish the event to the delayed retry queues. `after_s` is the shortest sensible delay."""

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0) -> None:
        super().__init__(message, reason=reason)
        self.after_s = after_s


class Unavailable(AutotagError):
    """The event is fine, but what would process it is disabled or out of order: the event waits.

    `after_s` is the shortest sensible wait, if it is known (until a budget renews).
    """

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0) -> None:
        super().__init__(message, reason=reason)
        self.after_s = after_s

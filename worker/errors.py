"""The errors of Autotag: one class for each decision a caller takes.

Library errors are translated into one of these where they are met. `reason` is a short fixed word for metrics and
for programs (`image_truncated`); the message is for people and says what happened, to which asset, and what to do.
"""

from __future__ import annotations


class AutotagError(Exception):
    """Base of every error that Autotag raises on purpose."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Misconfigured(AutotagError):
    """The operator must change something before this can work: refuse to start, or mark the provider and go on."""

    def __init__(self, message: str, *, reason: str = "misconfigured") -> None:
        super().__init__(message, reason=reason)


class CannotBeDone(AutotagError):
    """This event or image can never succeed: answer `failed` and dead-letter it."""


class TryLater(AutotagError):
    """It may succeed later: hand the event to the delayed retry lanes. `after_s` is the shortest sensible wait."""

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0) -> None:
        super().__init__(message, reason=reason)
        self.after_s = after_s


class Unavailable(AutotagError):
    """Nothing is wrong with the event, but what would answer it is switched off by a fault: the event waits.

    `after_s` is the shortest sensible wait, where that is known (until a budget renews).
    """

    def __init__(self, message: str, *, reason: str, after_s: float = 0.0) -> None:
        super().__init__(message, reason=reason)
        self.after_s = after_s

"""What can go wrong between us and the broker, by what the caller does about it."""

from __future__ import annotations

from worker.errors import TryLater


class NotPublished(TryLater):
    """The broker did not take responsibility for a message: whatever it was to replace must not be acknowledged."""


class NotConfirmed(NotPublished):
    """No answer: not connected, the connection was lost, or the time for it ran out. It may have arrived or not."""

    def __init__(self, message: str, *, reason: str = "not_confirmed") -> None:
        super().__init__(message, reason=reason)


class Unroutable(NotPublished):
    """The broker has no queue for the message: a binding is missing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="unroutable")


class PublishRefused(NotPublished):
    """The broker said no (basic.nack): a queue is full, or has lost its majority."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="publish_refused")


class Unpublishable(NotPublished):
    """The message can never be published as it is: too large for the broker, or not to be expressed in AMQP."""


class BrokerUnreachable(TryLater):
    """There is no broker, or it does not answer, or the connection to it was lost."""

    def __init__(self, message: str, *, reason: str = "broker_unreachable") -> None:
        super().__init__(message, reason=reason)

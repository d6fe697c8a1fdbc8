"""The errors between us and the broker, one class for each decision of the caller."""

from __future__ import annotations

from worker.errors import TryLater

TOO_LARGE = "message_too_large"
"""The reason of an `Unpublishable` message that is larger than RabbitMQ takes."""


class NotPublished(TryLater):
    """The broker did not take responsibility for a message: the delivery it was to replace must not be acknowledged."""


class NotConfirmed(NotPublished):
    """No confirm: not connected, the connection was lost, or the time for it ran out. The message may have arrived."""

    def __init__(self, message: str, *, reason: str = "not_confirmed") -> None:
        super().__init__(message, reason=reason)


class Unroutable(NotPublished):
    """The broker has no queue for the message: a binding is missing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="unroutable")


class PublishRefused(NotPublished):
    """The broker refused the message (basic.nack): a queue is full, or has lost its majority."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="publish_refused")


class Unpublishable(NotPublished):
    """The message can never be published: it is too large for the broker, or cannot be encoded as AMQP."""


class BrokerUnreachable(TryLater):
    """There is no broker, it does not reply, or the connection to it was lost."""

    def __init__(self, message: str, *, reason: str = "broker_unreachable") -> None:
        super().__init__(message, reason=reason)

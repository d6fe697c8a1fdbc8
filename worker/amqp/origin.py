"""Where an event came from when it was delivered for the first time: what decides for which instances it may speak.

A name in an event is a claim of its publisher's. What RabbitMQ vouches for is `user_id`, which it compares with the
user of the publisher's connection (https://www.rabbitmq.com/docs/validated-user-id), the exchange that the publisher
may write to, and the virtual host. After a retry all three are ours. So an event carries its origin in a header,
together with the instance that it spoke for; the header is believed only with our mark (`mark`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pika
from pydantic import TypeAdapter, ValidationError

from worker.amqp.pika_fixes import UnreadableProperties
from worker.settings import PublishersSettings

ORIGIN_HEADER = "x-autotag-origin"
"""The origin of an event that waits for a retry, or is a dead letter, as JSON."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who published an event, and through what; None for what nobody vouches for."""

    user: str | None = None
    """The `user_id` of its message."""
    exchange: str | None = None
    virtual_host: str | None = None
    instance: str | None = None
    """For which instance it spoke then; None while nobody has read it. A message's own headers, which may name the
    instance, are not covered by the mark: under another name than this the origin is worth nothing."""

    def as_header(self, instance: str | None) -> str:
        """The value of `ORIGIN_HEADER`, for an event that speaks for an instance."""
        return _ORIGIN.dump_json(replace(self, instance=self.instance or instance)).decode()

    def why_not_for(self, instance: str, publishers: PublishersSettings) -> str | None:
        """Why an event of this origin may not speak for an instance with these settings, in words; None if it may."""
        known = UNKNOWN if self.instance not in (None, instance) else self
        for what, is_, allowed, setting in (
            ("user", known.user, publishers.users, "users"),
            ("exchange", known.exchange, publishers.exchanges, "exchanges"),
            ("virtual host", known.virtual_host, publishers.virtual_hosts, "virtual_hosts"),
        ):
            if allowed is not None and (is_ is None or is_ not in allowed):
                which = f"the {what} {is_!r}" if is_ is not None else f"a {what} that nothing vouches for"
                return f"{which} may not publish events of the instance {instance!r} (`publishers.{setting}`)"
        return None


UNKNOWN = Origin()

_ORIGIN: TypeAdapter[Origin] = TypeAdapter(Origin)


def origin_on_arrival(properties: pika.BasicProperties, exchange: str | bytes, virtual_host: str) -> Origin:
    """The origin of a message that a publisher has written; names that are not UTF-8, bytes in pika, are none.

    A `user_id` of properties that pika and RabbitMQ may have read differently is not the one that was compared.
    """
    user = None if isinstance(properties, UnreadableProperties) else properties.user_id
    return Origin(_name(user), _name(exchange), virtual_host)


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None


def carried_origin(header: object) -> Origin:
    """The origin in an `ORIGIN_HEADER` of ours; an unknown one where there is none, or it cannot be read."""
    if not isinstance(header, str):
        return UNKNOWN
    try:
        return _ORIGIN.validate_json(header)
    except ValidationError:
        return UNKNOWN

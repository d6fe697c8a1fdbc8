"""A message that RabbitMQ has delivered and that is to be settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import pika

from worker.amqp.origin import ORIGIN_HEADER, UNKNOWN, Origin, carried_origin
from worker.amqp.topology import Lane

ATTEMPT_HEADER = "x-autotag-attempt"
"""Which attempt at an event this is, from 1. Our own count: a redelivery after a lost connection is no attempt."""

_MAXIMUM_ATTEMPT = 1000
"""The largest `retry.maximum_number_of_attempts`."""


class Ending(StrEnum):
    """How a delivery ended."""

    ANSWERED = "answered"
    RETRIED = "retried"
    DEAD_LETTERED = "dead_lettered"
    REQUEUED = "requeued"
    SPLIT = "split"
    """Several events in one message: each has a message of its own now."""
    IGNORED = "ignored"
    """A notification of what is no new image."""


class Settler(Protocol):
    """What a delivery needs of the channel it arrived on."""

    @property
    def is_open(self) -> bool:
        """Whether deliveries can still be settled on it."""
        ...

    def ack(self, tag: int) -> None:
        """Have RabbitMQ delete the message."""

    def requeue(self, tag: int) -> None:
        """Have RabbitMQ deliver the message again, to this consumer or another."""

    def reject(self, tag: int) -> None:
        """Have RabbitMQ move the message where its queue's dead letters go."""


@dataclass(slots=True, eq=False)
class Delivery:
    """One message in hand, to be settled exactly once: `ack` once what replaces it is confirmed, else `requeue`."""

    body: bytes = field(repr=False)
    properties: pika.BasicProperties = field(repr=False)
    lane: Lane
    tag: int
    redelivered: bool
    received_at_s: float
    """Monotonic."""
    _settler: Settler = field(repr=False)
    arrived_from: Origin = UNKNOWN
    """By what RabbitMQ says of this delivery; after a retry that is ourselves."""
    _settled: bool = field(default=False, repr=False)
    _lost: bool = field(default=False, repr=False)

    @property
    def headers(self) -> Mapping[str, Any]:
        """Headers as the publisher and RabbitMQ set them, without those whose names are not UTF-8 (bytes in pika)."""
        return {name: value for name, value in (self.properties.headers or {}).items() if isinstance(name, str)}

    @property
    def content_type(self) -> str | None:
        """Media type of the body, if the publisher set it."""
        return text(self.properties.content_type)

    @property
    def message_id(self) -> str | None:
        """The publisher's id for the message, if it set one."""
        return text(self.properties.message_id)

    @property
    def attempt(self) -> int:
        """Which attempt at the event this is, from 1."""
        return attempt_of(self.headers.get(ATTEMPT_HEADER))

    @property
    def origin(self) -> Origin:
        """Where the event came from when it was delivered for the first time."""
        carried = self.headers.get(ORIGIN_HEADER)  # marked, else it would have been dropped
        return self.arrived_from if carried is None else carried_origin(carried)

    @property
    def delivery_count(self) -> int:
        """How often RabbitMQ had delivered it before without an ack (`x-delivery-count`)."""
        return _whole_number(self.headers.get("x-delivery-count"), default=0)

    @property
    def settled(self) -> bool:
        """Whether `ack` or `requeue` was called."""
        return self._settled

    @property
    def lost(self) -> bool:
        """Whether it is no longer ours: its channel or consumer is gone, and RabbitMQ delivers it again."""
        return self._lost or not self._settler.is_open

    def ack(self) -> None:
        """Have RabbitMQ delete the message; only once what replaces it is confirmed. Raises RuntimeError if settled."""
        self._settle()
        self._settler.ack(self.tag)

    def requeue(self) -> None:
        """Return the message to its queue. Raises RuntimeError if settled."""
        self._settle()
        self._settler.requeue(self.tag)

    def reject(self) -> None:
        """Have RabbitMQ move the message to the dead letters as it is. Raises RuntimeError if settled.

        Only while its lane `Broker.can_reject`: a queue without a dead-letter exchange would drop it.
        """
        self._settle()
        self._settler.reject(self.tag)

    def lose(self) -> None:
        """Mark it as no longer ours; nothing is sent for it any more. Called by its consumer."""
        self._lost = True

    def _settle(self) -> None:
        if self._settled:
            raise RuntimeError(f"delivery {self.tag} ({self.message_id}) is settled already")
        self._settled = True


def text(value: object) -> str | None:
    """A property or header as text, whatever its type; bytes that are not UTF-8 are replaced."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)


def attempt_of(header: object) -> int:
    """The attempt that a header gives; 1 where it gives none that could be ours."""
    attempt = _whole_number(header, default=1)
    return attempt if 1 <= attempt <= _MAXIMUM_ATTEMPT else 1


def _whole_number(value: object, *, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default

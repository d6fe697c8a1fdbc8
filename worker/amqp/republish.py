"""What takes the place of a delivery: the same message with other properties, to wait, to be set aside, to come back.

A replacement keeps what the publisher said (CloudEvents attributes and `traceparent` are headers) and drops what only
made sense on the way it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pika

from worker.amqp.delivery import ATTEMPT_HEADER, Delivery

OWN_PREFIX = "x-autotag-"
REASON_HEADER = "x-autotag-reason"
MESSAGE_HEADER = "x-autotag-message"
ASSET_HEADER = "x-autotag-asset"
INSTANCE_HEADER = "x-autotag-instance"
FAILED_AT_HEADER = "x-autotag-failed-at"
LANE_HEADER = "x-autotag-lane"

MAXIMUM_MESSAGE_CHARACTERS = 1000
"""Of the text that says why; it may quote what a publisher sent."""

MAXIMUM_PROPERTIES_BYTES = 120 * 1024
"""RabbitMQ ends the connection over properties that do not fit into one frame (128 KiB). Where a publisher's headers
leave no room for ours, ours go alone."""

_OF_THE_BROKER = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_CARBON_COPIES = frozenset({"CC", "BCC"})
"""RabbitMQ would route a copy by these (https://www.rabbitmq.com/docs/sender-selected)."""


def to_retry(delivery: Delivery, headers: Mapping[str, object], *, attempt: int) -> pika.BasicProperties:
    """Properties of a delivery that waits for its `attempt`-th attempt. `headers` are added to its own."""
    return _carried(delivery.properties, {ATTEMPT_HEADER: attempt, **headers})


def to_set_aside(
    delivery: Delivery,
    reason: str,
    message: str,
    *,
    asset: str | None,
    instance: str | None,
    headers: Mapping[str, object],
    now: datetime,
) -> pika.BasicProperties:
    """Properties of a dead letter: the reason, and what a person needs to find the image again."""
    said = {
        REASON_HEADER: reason,
        MESSAGE_HEADER: message[:MAXIMUM_MESSAGE_CHARACTERS],
        FAILED_AT_HEADER: now.astimezone(UTC).isoformat(timespec="seconds"),
        ATTEMPT_HEADER: delivery.attempt,
        LANE_HEADER: delivery.lane.value,
    }
    known = {ASSET_HEADER: asset, INSTANCE_HEADER: instance}
    return _carried(
        delivery.properties, said | {name: value for name, value in known.items() if value is not None} | dict(headers)
    )


def to_replay(properties: pika.BasicProperties) -> pika.BasicProperties:
    """Properties of a dead letter that is sent again as if for the first time."""
    kept = _carried(properties, {})
    kept.headers = {name: value for name, value in (kept.headers or {}).items() if not name.startswith(OWN_PREFIX)}
    return kept


def _carried(properties: pika.BasicProperties, added: Mapping[str, object]) -> pika.BasicProperties:
    """What goes over into a replacement.

    `user_id` stays behind because RabbitMQ refuses one that is not ours, `expiration` because it would end a wait.
    """
    kept = {
        name: value
        for name, value in (properties.headers or {}).items()
        if isinstance(name, str) and not name.startswith(_OF_THE_BROKER) and name not in _CARBON_COPIES
    }
    carried = pika.BasicProperties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=kept | dict(added),
        delivery_mode=2,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.type,
        app_id=properties.app_id,
    )
    if sum(map(len, carried.encode())) > MAXIMUM_PROPERTIES_BYTES:
        carried.headers = dict(added)
    return carried

"""The properties of a message that replaces a delivery: one that waits for a retry, a dead letter, a replayed event.

They keep what the publisher set (CloudEvents attributes and `traceparent` are headers) and drop what concerned only the
delivery itself. What waits for a retry and what is dead-lettered carries our mark, without which our headers are not
believed when they come back.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime

import pika

from worker.amqp.delivery import ATTEMPT_HEADER, Delivery
from worker.amqp.mark import HeaderMark, without_own
from worker.amqp.origin import ORIGIN_HEADER
from worker.operations.clock import written

REASON_HEADER = "x-autotag-reason"
MESSAGE_HEADER = "x-autotag-message"
ASSET_HEADER = "x-autotag-asset"
INSTANCE_HEADER = "x-autotag-instance"
FAILED_AT_HEADER = "x-autotag-failed-at"
LANE_HEADER = "x-autotag-lane"
PROBE_HEADER = "x-autotag-probe"
"""On a message of ours that is no event: it only finds out whether a queue gets it, and is dropped where it arrives."""
LEFT_OUT_HEADER = "x-autotag-left-out"
"""On a dead letter whose body did not fit: what was left out of it, with size and SHA-256."""

CONNECTION_HEADER = "x-autotag-connection"
"""On a dead letter that is a result: the connection whose target did not take it."""

_ABOUT_THE_FAILURE = frozenset(
    {
        *(REASON_HEADER, MESSAGE_HEADER, ASSET_HEADER, INSTANCE_HEADER),
        *(FAILED_AT_HEADER, LANE_HEADER, LEFT_OUT_HEADER, CONNECTION_HEADER),
    }
)
"""What describes one dead letter, and is never taken over from an earlier one."""

MAXIMUM_MESSAGE_CHARACTERS = 1000
"""Limit for `MESSAGE_HEADER`, whose text may quote what a publisher sent."""

MAXIMUM_PROPERTIES_BYTES = 120 * 1024
"""RabbitMQ closes the connection over properties that do not fit into one frame (128 KiB). Where a publisher's headers
leave no room for ours, only ours are kept."""

_SHORT_BYTES = 255
"""The longest text of a property."""

_BROKER_HEADERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_SENDER_SELECTED_HEADERS = frozenset({"CC", "BCC"})
"""RabbitMQ routes further copies by these (https://www.rabbitmq.com/docs/sender-selected)."""

_DROPPED_HEADERS = _SENDER_SELECTED_HEADERS | _ABOUT_THE_FAILURE


def retry_properties(
    delivery: Delivery, headers: Mapping[str, object], *, attempt: int, mark: HeaderMark
) -> pika.BasicProperties:
    """Properties of a message that waits for its `attempt`-th attempt (from 1). `headers` are added to its own."""
    made = _carried_over(delivery.properties, {ATTEMPT_HEADER: attempt, **headers})
    mark.put_on(made, delivery.body)
    return made


def part_properties(
    delivery: Delivery, message_id: str, body: bytes, headers: Mapping[str, object], mark: HeaderMark
) -> pika.BasicProperties:
    """Properties of a message with one of the events of a delivery. `headers` are added to its own."""
    made = _carried_over(delivery.properties, headers)
    made.message_id = message_id
    mark.put_on(made, body)
    return made


def dead_letter_properties(
    delivery: Delivery,
    reason: str,
    message: str,
    *,
    asset: str | None,
    instance: str | None,
    headers: Mapping[str, object],
    now: datetime,
    mark: HeaderMark,
    body: bytes | None = None,
    left_out: str | None = None,
    without_publishers: bool = False,
) -> pika.BasicProperties:
    """Properties of a dead letter: the reason, and what an operator needs to find the image.

    `body` is the letter's where it is not the delivery's, and `left_out` what it lacks of that. `without_publishers`:
    ours alone, where the publisher's cannot be written again.
    """
    failure = {
        REASON_HEADER: reason,
        MESSAGE_HEADER: message[:MAXIMUM_MESSAGE_CHARACTERS],
        FAILED_AT_HEADER: written(now),
        ATTEMPT_HEADER: delivery.attempt,
        LANE_HEADER: delivery.lane.value,
    }
    subject = {ASSET_HEADER: asset, INSTANCE_HEADER: instance, LEFT_OUT_HEADER: left_out}
    known = {name: value for name, value in subject.items() if value is not None}
    added = failure | known | dict(headers)
    make = _ours_alone if without_publishers else _carried_over
    made = make(delivery.properties, added)
    mark.put_on(made, delivery.body if body is None else body)
    return made


def without_image(body: bytes, *, maximum_bytes: int | None) -> bytes:
    """An event without the image in it, or nothing at all where the image is the body, or it is still too large."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return b""
    for holder in (event, event.get("data") if isinstance(event, dict) else None):
        content = holder.get("content") if isinstance(holder, dict) else None
        if isinstance(content, dict):
            content.pop("base64", None)
    written = json.dumps(event).encode()
    return written if maximum_bytes is None or len(written) <= maximum_bytes else b""


def probe_properties(mark: HeaderMark, *, expires: bool = True) -> pika.BasicProperties:
    """Properties of an empty message that finds out whether a queue gets it. One that `expires` does so at once."""
    made = pika.BasicProperties(
        headers={PROBE_HEADER: 1},
        delivery_mode=2,
        expiration="0" if expires else None,
        message_id=f"autotag-probe-{uuid.uuid4()}",
    )
    mark.put_on(made, b"")
    return made


def is_probe(properties: pika.BasicProperties, body: bytes) -> bool:
    """Whether a message is a probe of ours, with our mark or another's: of a worker, or of a check with another key.

    One that somebody else wrote is no loss, since it is empty: no event and no letter is.
    """
    return not body and PROBE_HEADER in (properties.headers or {})


def replay_properties(
    properties: pika.BasicProperties, body: bytes, *, origin: str, mark: HeaderMark
) -> pika.BasicProperties:
    """Properties of a dead letter's event that is published again as if for the first time.

    Only its `origin` is what it was: the one who replays it is not its publisher.
    """
    made = _carried_over(properties, {})
    made.headers = without_own(made.headers) | {ORIGIN_HEADER: origin}
    mark.put_on(made, body)
    return made


def _carried_over(properties: pika.BasicProperties, added: Mapping[str, object]) -> pika.BasicProperties:
    """The properties that a replacement keeps, with `added` headers.

    `user_id` is dropped because RabbitMQ refuses one that is not ours, `expiration` because it would cut a wait short.
    """
    kept = {
        name: value
        for name, value in (properties.headers or {}).items()
        if isinstance(name, str) and not name.startswith(_BROKER_HEADERS) and name not in _DROPPED_HEADERS
    }
    made = pika.BasicProperties(
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
    try:
        fits = sum(map(len, made.encode())) <= MAXIMUM_PROPERTIES_BYTES
    except Exception:  # noqa: BLE001 - what pika has read it may not be able to write: a list 900 deep, a year 10000
        return _ours_alone(properties, added)
    if not fits:
        made.headers = dict(added)
    return made


def _ours_alone(properties: pika.BasicProperties, added: Mapping[str, object]) -> pika.BasicProperties:
    """Properties without the publisher's, but for its id and its body's type, which everything after needs."""
    kept = {
        name: value
        for name in ("content_type", "message_id")
        if isinstance(value := getattr(properties, name), str) and len(value.encode(errors="replace")) <= _SHORT_BYTES
    }
    return pika.BasicProperties(headers=dict(added), delivery_mode=2, **kept)

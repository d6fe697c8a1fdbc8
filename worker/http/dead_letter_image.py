"""A thumbnail of a dead letter's image: fetched and decoded as an event's is, within the same limits, for one person.

An image that has killed a decoder, or that an event had no right to name, is not looked at again.
"""

from __future__ import annotations

import asyncio

from worker.amqp.dead_letters import UNMARKED, DeadLetter
from worker.amqp.delivery import text
from worker.engine import Active
from worker.errors import AutotagError
from worker.messages.s3_notifications import s3_notification
from worker.operations.history.thumbnails import THUMBNAIL
from worker.pipeline import read_event_in, why_not_allowed
from worker.supervision.turns import Turn

_NOT_AGAIN = frozenset(
    (
        UNMARKED,
        "decoder_killed_from_outside",
        "image_in_hand_at_model_crashes",
        "image_killed_decoder",
        "image_too_large_memory",
        "image_too_slow",
        "instance_not_allowed",
    )
)
_WITHIN_S = 8.0

_one_at_a_time = asyncio.Semaphore(1)


def has_image(letter: DeadLetter) -> bool:
    """Whether a thumbnail of it may be made at all."""
    return letter.reason not in _NOT_AGAIN and letter.left_out is None and not letter.unmarked


async def thumbnail_of(letter: DeadLetter, active: Active) -> bytes | None:
    """A JPEG of a few kilobytes; None where the image cannot be had in a few seconds, or must not be looked at."""
    if not has_image(letter):
        return None
    try:
        async with asyncio.timeout(_WITHIN_S), _one_at_a_time:
            return await _make(letter, active)
    except (AutotagError, OSError):  # a TimeoutError is an OSError
        return None


async def _make(letter: DeadLetter, active: Active) -> bytes | None:
    notification = s3_notification(letter.body, text(letter.properties.message_id))
    if notification is not None and not notification.is_one_event:
        return None
    headers = {name: value for name, value in (letter.properties.headers or {}).items() if isinstance(name, str)}
    read = read_event_in(
        letter.body,
        text(letter.properties.content_type),
        headers,
        text(letter.properties.message_id),
        active.settings,
        notification,
    )
    name = read.event.data.instance
    instance = active.settings.instance(name)
    if instance is None or why_not_allowed(name, letter.origin, active.settings) is not None:
        return None
    turn = Turn(name, bulk=True)
    engine = active.engine
    content = await engine.sources.open_content(
        read.event, read.image_bytes, active.settings.sources_of(instance), turn
    )
    with content:
        return await engine.decoders.shrink(content, THUMBNAIL, read.event.data.asset_id, turn)

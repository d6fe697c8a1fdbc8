"""Refuses an event whose JSON is larger than any event has to be, before anything is parsed.

A parsed tree takes many times the memory of its text: one message of 64 MiB took 900 MiB. The asset and the instance of
such an event can often be seen at its beginning.
"""

from __future__ import annotations

import re
from typing import Final

from worker.messages.fields import MAXIMUM_ID_CHARACTERS, is_instance_name
from worker.messages.unreadable import UnreadableEvent

_FIELDS_BYTES: Final = 1 << 20
"""For everything but the image."""

_HEAD_BYTES: Final = 1 << 16
_ASSET_ID: Final = re.compile(rb'"asset_id"\s*:\s*"([^"\\\x00-\x1f\x7f]{1,1024})"')
_INSTANCE: Final = re.compile(rb'"instance"\s*:\s*"([A-Za-z0-9._-]{1,100})"')


def refuse_oversized(body: bytes, content_type: str | None, message_id: str | None, maximum_image_bytes: int) -> None:
    """Raise UnreadableEvent for JSON that is larger than one with an image of this size in base64 can be.

    A body that is the image itself has a limit of its own, where it is opened.
    """
    maximum = (maximum_image_bytes + 2) // 3 * 4 + _FIELDS_BYTES
    if len(body) <= maximum or (content_type or "").strip().lower().startswith("image/"):
        return
    head = body[:_HEAD_BYTES]
    asset_id, instance = _text_in(_ASSET_ID, head), _text_in(_INSTANCE, head)
    about = f"asset {asset_id}" if asset_id else f"message {message_id}" if message_id else "it has no id"
    raise UnreadableEvent(
        f"an event cannot be read ({about}): it has {len(body):,} bytes, at most {maximum:,} are read "
        "(`sources.inline_maximum_bytes` and what base64 makes of it); publish a path or a url instead",
        reason="event_too_large",
        asset_id=asset_id,
        event_id=message_id,
        instance=instance if instance is not None and is_instance_name(instance) else None,
    )


def _text_in(pattern: re.Pattern[bytes], head: bytes) -> str | None:
    found = pattern.search(head)
    if found is None:
        return None
    try:
        text = found[1].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if len(text) <= MAXIMUM_ID_CHARACTERS else None

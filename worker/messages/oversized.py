"""Refuses an event whose JSON is larger than any event has to be, before anything is parsed.

A parsed tree takes many times the memory of its text: one message of 64 MiB took 900 MiB. The asset and the instance of
such an event can often be seen at its beginning, or in its headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from worker.messages.concern import concern_in_text
from worker.messages.reading import concern_in_headers
from worker.messages.unreadable import UnreadableEvent

_FIELDS_BYTES: Final = 1 << 20
"""For everything but the image."""


def refuse_oversized(
    body: bytes,
    content_type: str | None,
    headers: Mapping[str, object],
    message_id: str | None,
    maximum_image_bytes: int,
) -> None:
    """Raise UnreadableEvent for JSON that is larger than one with an image of this size in base64 can be.

    A body that is the image itself has a limit of its own, where it is opened.
    """
    maximum = (maximum_image_bytes + 2) // 3 * 4 + _FIELDS_BYTES
    if len(body) <= maximum or (content_type or "").strip().lower().startswith("image/"):
        return
    concern = concern_in_text(body).or_else(concern_in_headers(headers))
    asset_id = concern.asset_id
    about = f"asset {asset_id}" if asset_id else f"message {message_id}" if message_id else "it has no id"
    raise UnreadableEvent(
        f"an event cannot be read ({about}): it has {len(body):,} bytes, at most {maximum:,} are read "
        "(`sources.inline_maximum_bytes` and what base64 makes of it); publish a path or a url instead",
        reason="event_too_large",
        asset_id=asset_id,
        event_id=message_id,
        instance=concern.instance,
    )

"""Images inside the message: as base64, or as its body."""

from __future__ import annotations

from worker.errors import CannotBeDone
from worker.images.content import Content
from worker.messages import Event, LargeImage
from worker.settings import SourcesSettings


def open_inline(event: Event, image_bytes: bytes | LargeImage | None, settings: SourcesSettings) -> Content:
    """The image that `read_event` found in the message. Raises CannotBeDone if it is empty or too large."""
    origin = "message body" if event.data.content.is_body else "base64 in the message"
    if not image_bytes:
        raise CannotBeDone(f"the {origin} is empty: there is no image in it", reason="content_empty")
    maximum = min(settings.inline_maximum_bytes, settings.maximum_bytes)
    if len(image_bytes) > maximum:
        raise CannotBeDone(
            f"the {origin} holds {len(image_bytes):,} bytes, at most {maximum:,} are taken "
            "(`sources.inline_maximum_bytes`); publish a path or a url instead",
            reason="content_too_large",
        )
    return Content.from_pieces([image_bytes] if isinstance(image_bytes, bytes) else image_bytes, origin)

"""Upload events: what the DMS publishes about one image. `reading` parses them from AMQP messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from worker.messages.event_context import EventContext
from worker.messages.fields import (
    Flag,
    GivenAssetId,
    GivenBase64,
    GivenEventId,
    GivenInstance,
    GivenPath,
    GivenUrl,
    Moment,
    Note,
    ShortText,
    Tags,
    TraceParent,
    TraceState,
)
from worker.messages.large_image import LargeImage
from worker.messages.oddities import CONTENT_FIELDS, OddField, absent_is, is_empty, note

CLOUDEVENTS_JSON: Final = "application/cloudevents+json"
"""The content type of a CloudEvent in structured mode: of every result, and of most events."""

EVENT_TYPE: Final = "dms.image.uploaded.v1"

DEFAULT_INSTANCE: Final = "default"
"""The virtual instance of an event that names none."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, use_attribute_docstrings=True)


class ContentRef(_Model):
    """Where the image is: exactly one of `path`, `url` and `base64`."""

    path: GivenPath = None
    """A file below one of the configured roots (`sources.path_roots`)."""
    url: GivenUrl = None
    """An http or https address on one of the allowed hosts (`sources.url_allowed_hosts`)."""
    base64: GivenBase64 = Field(default=None, repr=False)
    """The image itself, for small ones."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [kind], "properties": {kind: {"type": "string", "pattern": r"\S"}}}
                for kind in CONTENT_FIELDS
            ]
        }
    )

    @property
    def is_body(self) -> bool:
        """Whether the AMQP body itself is the image."""
        return self.kind == "body"

    @property
    def kind(self) -> Literal["path", "url", "base64", "body", "s3"]:
        """The name of the field that is set; `body` when none is."""
        if self.path is not None:
            return "path"
        if self.url is not None:
            return "url"
        return "body" if self.base64 is None else "base64"

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, value: object, info: ValidationInfo) -> object:
        # Applies to untrusted input only, which is a dict: IN_THE_BODY passes unchecked.
        if not isinstance(value, dict):
            return value
        given = [kind for kind in CONTENT_FIELDS if value.get(kind) is not None]
        used = [kind for kind in given if not is_empty(value[kind])] or given
        if len(used) != 1:
            raise ValueError("must have exactly one of path, url and base64")
        for kind in given:
            if kind not in used:
                note(info, "empty", kind)
        return {used[0]: value[used[0]]}


IN_THE_BODY = ContentRef.model_construct()
"""The content of an event whose AMQP body is the image. It has no JSON form: it follows from the content type."""


class EventData(_Model):
    """What the DMS knows about an uploaded image. Fields that are not listed here are ignored."""

    asset_id: GivenAssetId
    """The DMS's id of the asset; repeated in the result, as text."""
    instance: Annotated[GivenInstance, absent_is(DEFAULT_INSTANCE)] = DEFAULT_INSTANCE
    """The virtual instance (tenant) whose settings apply."""
    content: ContentRef
    """Where the image is."""
    file_name: Note = None
    """For people and logs; the image format is detected from the bytes."""
    mime_type: Note = None
    """The type the DMS has recorded; informative only."""
    existing_tags: Tags = ()
    """Tags that the asset already has. By default an asset with tags is skipped."""
    temporary: Flag = False
    """Whether the asset is a temporary file; temporary files are not tagged."""
    site: Note = None
    """The site within the instance."""
    locale: Note = None
    """The language of the asset, such as `en-GB`."""
    context: EventContext = Field(default=None, repr=False)
    """An object of the publisher's own, at most 4 KiB as JSON; the result has it as it was. Not looked into."""


class Attributes(_Model):
    """The CloudEvents context attributes that matter here. Extension attributes of other names are ignored."""

    specversion: Literal["1.0"]
    id: GivenEventId
    """Identifies the event together with `source`: an event that is sent again has the same two."""
    source: ShortText
    """The publisher of the event."""
    type: Literal["dms.image.uploaded.v1"]
    time: Moment = None
    """When the image was uploaded, with the time zone; informative only."""
    traceparent: TraceParent = None
    """W3C trace context; copied to the result, ignored when malformed."""
    tracestate: TraceState = None
    """W3C trace context; copied to the result."""


class Event(Attributes):
    """One upload event."""

    data: EventData

    def without_image(self) -> Event:
        """The event, without an image that was a part of its message."""
        return self.model_copy(update={"data": self.data.model_copy(update={"content": IN_THE_BODY})})


@dataclass(frozen=True, slots=True)
class ReadEvent:
    """An event, with the image's bytes if the message contained them.

    Of a `LargeImage`, `event.data.content` has a placeholder.
    """

    event: Event
    image_bytes: bytes | LargeImage | None = field(repr=False)
    oddities: tuple[OddField, ...] = ()
    """What was not as described in the message, and no reason to refuse it."""

"""Parses events from AMQP messages.

An event arrives in one of three encodings, distinguished by content type and headers (docs/messages.md describes them
for publishers):

- CloudEvents in structured mode: the body is JSON and holds everything;
- CloudEvents in binary mode: the attributes are headers, the body is the JSON `data` or the image itself;
- plain: the body is the JSON `data` alone or the image itself.

A message that cannot be parsed raises `UnreadableEvent` and nothing else: one net is around everything that reads it,
because what a publisher may send is more than anybody foresees. What only informs stops no event
(`oddities`): neither a field of data, nor a byte order mark, nor bytes in a text that are not the text they should be.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from worker.messages.concern import Concern, concern_in, concern_in_text
from worker.messages.event_context import context_or_none
from worker.messages.events import (
    CLOUDEVENTS_JSON,
    EVENT_TYPE,
    IN_THE_BODY,
    Attributes,
    Event,
    EventData,
    ReadEvent,
)
from worker.messages.fields import MAXIMUM_ID_CHARACTERS, GivenEventId, decode_base64, trace_parent, trace_state
from worker.messages.large_image import cut_image
from worker.messages.oddities import OddField
from worker.messages.repeated_names import RepeatedNames, refuse_repeated_names
from worker.messages.unreadable import FieldError, UnreadableEvent, explain

PLAIN_SOURCE = "plain"
"""The `source` of an event that was published without one."""

_PLAIN_ID_NAMESPACE = uuid.UUID("200b2d7d-e0c5-58c7-b07b-0fb591c0f54e")  # UUIDv5 of the URL urn:autotag:plain-events

_PREFIXES = ("cloudevents:", "cloudevents_", "ce-")
"""Prefixes of attribute names in headers: the two of the AMQP binding, and the one of Knative's RabbitMQ binding."""

_KIND_OF_OURS = "dms.image."
"""What the type of an event of ours begins with in any version."""

_ANY_JSON: TypeAdapter[object] = TypeAdapter(object)
_TAG_LIST: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])


_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_Oddities = list[OddField]
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Message:
    """An AMQP message; `attributes` are those headers that are CloudEvents attributes, as text.

    JSON in `body` is UTF-8 without a byte order mark, whatever arrived.
    """

    body: bytes
    media_type: str
    headers: Mapping[str, object]
    attributes: Mapping[str, str]
    message_id: str | None
    whole: bytes
    """The body with what `large_image` has cut out of it."""

    @property
    def is_image(self) -> bool:
        return self.media_type.startswith("image/")


def read_event(
    body: bytes, content_type: str | None, headers: Mapping[str, object], message_id: str | None
) -> ReadEvent:
    """The event in an AMQP message: `content_type`, `headers` and `message_id` are the message's properties.

    Raises UnreadableEvent with reason `event_not_json`, `event_invalid` or `event_type_unknown`.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    odd: _Oddities = []
    if not media_type.startswith("image/"):
        body = _without_mark(body, odd)
    message = _Message(body, media_type, headers, _attributes(headers), message_id, body)
    try:
        read = _read_without_image(message, odd) or _read(message, odd)
        read = with_trace_of(message.headers, read)
    except (ValidationError, FieldError) as error:
        raise _unreadable(message, error) from None
    except MemoryError:
        raise  # this machine has run out, which is not the event's fault
    except Exception as error:
        raise _unreadable(message, FieldError(f"event: cannot be read ({type(error).__name__})")) from error
    return replace(read, oddities=tuple(dict.fromkeys(odd))) if odd else read


def _read_without_image(message: _Message, odd: _Oddities) -> ReadEvent | None:
    """The event of a large JSON body, whose image is decoded later; None for any other, and if anything is wrong."""
    cut = None if message.is_image else cut_image(message.body)
    if cut is None:
        return None
    found: _Oddities = []
    try:
        read = _read(replace(message, body=cut.body), found)
        if read.image_bytes != cut.placeholder:
            return None  # it was something else
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - it is read once more, for an error that names the field
        return None
    odd += found
    return replace(read, image_bytes=cut.image)


def _read(message: _Message, odd: _Oddities) -> ReadEvent:
    if message.media_type.startswith("application/cloudevents"):
        if message.media_type != CLOUDEVENTS_JSON:
            raise FieldError(f"content type: of the CloudEvents formats only {CLOUDEVENTS_JSON} is read")
        return _structured(message.body, odd)
    if message.attributes:
        # The attributes are validated first: an event of another type is refused for its type, whatever its data is.
        attributes = Attributes.model_validate_strings(message.attributes, context=odd)
        return _with_data(attributes, message.body, message.is_image, message.attributes, odd)
    if not message.is_image and b'"specversion"' in message.body and "specversion" in _object(message.body):
        return _structured(message.body, odd)  # sent with a generic JSON content type, or none
    attributes = Attributes(
        specversion="1.0",
        id=message.message_id or str(uuid.uuid5(_PLAIN_ID_NAMESPACE, hashlib.sha256(message.whole).hexdigest())),
        source=PLAIN_SOURCE,
        type=EVENT_TYPE,
    )
    fields = _fields_of_image(message) if message.is_image else {}
    return _with_data(attributes, message.body, message.is_image, fields, odd)


def _structured(body: bytes, odd: _Oddities) -> ReadEvent:
    refuse_repeated_names(body)
    if b'"data_base64"' in body and "data_base64" in (event := _object(body)):
        attributes = Attributes.model_validate(event, context=odd)
        try:
            data = decode_base64(event["data_base64"])
        except ValueError as error:
            raise FieldError(f"data_base64: {error}") from None
        is_image = str(event.get("datacontenttype")).startswith("image/")
        data = data if is_image else _without_mark(data, odd)
        return _with_data(attributes, data, is_image, _as_text(event), odd)
    read = _validated(Event, body, odd)
    return ReadEvent(read, read.data.content.base64)


def _with_data(
    attributes: Attributes, body: bytes, is_image: bool, fields: Mapping[str, str], odd: _Oddities
) -> ReadEvent:
    """An event whose data is `body`: JSON, or an image that `fields` describe."""
    if is_image:
        return ReadEvent(_join(attributes, _data_of_image(fields, odd)), body)
    refuse_repeated_names(body)
    data = _validated(EventData, body, odd)
    return ReadEvent(_join(attributes, data), data.content.base64)


def _validated(model: type[_Model], body: bytes, odd: _Oddities) -> _Model:
    """The model in a JSON body. Raises ValidationError."""
    try:
        return model.model_validate_json(body, context=odd)
    except ValidationError as error:
        if not _is_not_json(error):
            raise
    return model.model_validate(_json(body), context=odd)


def _json(body: bytes) -> object:
    """The value in a JSON body. Raises ValidationError if it is not JSON.

    A text in it may hold what is none: a file name of another encoding, half of a pair of surrogates, a line break that
    is not escaped. pydantic refuses the body for it, whichever field that is in; here such a text is kept, for the
    field's own type to judge.
    """
    try:
        return _ANY_JSON.validate_json(body)
    except ValidationError as error:
        if not any(sign in error.errors(include_url=False)[0]["msg"] for sign in _SIGNS_OF_BAD_TEXT):
            raise
        try:
            return json.loads(body.decode("utf-8", "surrogateescape"), strict=False)
        except (ValueError, RecursionError):
            pass
        raise


_SIGNS_OF_BAD_TEXT = ("invalid unicode code point", "surrogate", "hex escape", "control character")
"""In the messages of pydantic's parser, jiter."""


def _object_with_any_numbers(body: bytes) -> dict[str, Any]:
    """The object in a JSON body some of whose numbers no reader takes, as they have thousands of digits; else none."""
    try:
        found = json.loads(body.decode("utf-8", "surrogateescape"), strict=False, parse_int=_short_number)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _short_number(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAXIMUM_ID_CHARACTERS else None


def _is_not_json(error: ValidationError) -> bool:
    return error.errors(include_url=False)[0]["type"] == "json_invalid"


def _without_mark(body: bytes, odd: _Oddities) -> bytes:
    """JSON without the byte order mark that some systems begin every text with, and in UTF-8, as JSON has to be."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            odd.append(OddField("body", "byte_order_mark"))
            if encoding == "utf-8":
                return body.removeprefix(mark)
            try:
                return body.decode(encoding).encode()
            except UnicodeDecodeError:
                return body
    return body


def _join(attributes: Attributes, data: EventData) -> Event:
    return Event.model_construct(**dict(attributes), data=data)


def _data_of_image(fields: Mapping[str, str], odd: _Oddities) -> EventData:
    """The data of an image that is a message body. Attribute names have no underscores in CloudEvents: `assetid`."""
    data: dict[str, Any] = {
        name: text for name in EventData.model_fields if (text := fields.get(name.replace("_", ""))) is not None
    }
    data["asset_id"] = _asset_in(fields)
    if data["asset_id"] is None:
        raise FieldError("assetid: field required, as an attribute of that name or as `subject`")
    if data.get("existing_tags", "").strip():
        try:
            data["existing_tags"] = _TAG_LIST.validate_json(data["existing_tags"])
        except ValidationError:
            raise FieldError('existingtags: must be a JSON array of names, such as ["cat","sofa"]') from None
    if data.get("context", "").strip():
        data["context"] = _object_in_text("context", data["context"])
    return EventData.model_validate(data | {"content": IN_THE_BODY}, strict=False, context=odd)


def _object_in_text(field: str, text: str) -> object:
    raw = text.encode(errors="replace")
    refuse_repeated_names(raw)
    try:
        return _json(raw)
    except ValueError:  # ValidationError is one
        raise FieldError(f"{field}: must be a JSON object, as text") from None


def _asset_in(fields: Mapping[str, Any]) -> Any:
    """The asset that attributes of an event of ours name."""
    return fields.get("assetid") or fields.get("subject")


def _asset_seen_in(attributes: Mapping[str, Any]) -> Any:
    """The asset that attributes name, whatever their event is: `subject` of one of others is a user, an order, …"""
    kind = attributes.get("type")
    is_of_others = isinstance(kind, str) and not kind.startswith(_KIND_OF_OURS)
    return attributes.get("assetid") if is_of_others else _asset_in(attributes)


def _object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; an empty one for JSON of another type. Raises ValidationError if it is not JSON."""
    value = _json(body)
    return value if isinstance(value, dict) else {}


def _attributes(headers: Mapping[str, object]) -> dict[str, str]:
    if not headers:
        return {}
    return _as_text(
        {
            name[len(prefix) :].lower(): value
            for name, value in headers.items()
            for prefix in _PREFIXES
            if name[: len(prefix)].lower() == prefix
        }
    )


def _as_text(fields: Mapping[str, object]) -> dict[str, str]:
    """Fields as text, as in headers; one without a value is no field."""
    return {name: _text(value) for name, value in fields.items() if value is not None}


def _fields_of_image(message: _Message) -> Mapping[str, str]:
    """What describes an image body: the attributes or, in a plain message, headers named like the data's fields."""
    return message.attributes or _as_text({name.replace("_", ""): value for name, value in message.headers.items()})


_NO_TEXT = "\x00"
"""In place of a value that has no form as text. No field that decides takes it; in other headers it does no harm."""


def _text(value: object) -> str:
    """A header's value in CloudEvents' string encoding."""
    try:
        return _encoded(value)
    except (ValueError, RecursionError):  # bytes that are no text, tables too deep in tables, a number of many digits
        return _NO_TEXT


def _encoded(value: object) -> str:
    match value:
        case str():
            return value
        case bytes():
            return value.decode(errors="replace")
        case bool():
            return "true" if value else "false"
        case datetime():  # AMQP timestamps have no time zone and mean UTC
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case list() | tuple() | dict():
            return _ANY_JSON.dump_json(value).decode()
        case _:
            return str(value)


def with_trace_of(headers: Mapping[str, object], read: ReadEvent) -> ReadEvent:
    """The event with the trace context in its message's own headers: that is of the more recent span."""
    parent = trace_parent(_text(headers.get("traceparent", "")))
    if parent is None:
        return read
    state = trace_state(_text(headers.get("tracestate", "")))
    return replace(read, event=read.event.model_copy(update={"traceparent": parent, "tracestate": state}))


_NAMES_OF_THE_ASSET = frozenset({"asset_id", "assetid", "subject", "instance", "data", "data_base64", "specversion"})

_EVENT_ID: TypeAdapter[str] = TypeAdapter(GivenEventId)


def concern_in_headers(headers: Mapping[str, object]) -> Concern:
    """The asset and the instance that a message's headers name, whatever its body is."""
    attributes = _attributes(headers)
    if attributes:
        return concern_in({"asset_id": _asset_seen_in(attributes), "instance": attributes.get("instance")})
    return concern_in(_as_text({name: headers.get(name) for name in ("asset_id", "instance")}))


def _unreadable(message: _Message, error: ValidationError | FieldError) -> UnreadableEvent:
    reason, faults = explain(error, EVENT_TYPE)
    is_json = True
    try:
        event = {} if message.is_image else _object(message.body)
    except (ValueError, RecursionError):  # ValidationError is a ValueError
        event = _object_with_any_numbers(message.body)
        is_json = bool(event)
    contradicts_itself = isinstance(error, RepeatedNames) and not error.names.isdisjoint(_NAMES_OF_THE_ASSET)
    if contradicts_itself:
        event = {}  # nobody knows which of them is meant
    data = _data_in(event)
    concern = _concern(message, event, data) if is_json else concern_in_text(message.body)
    in_headers = concern_in_headers(message.headers)
    if not contradicts_itself or in_headers.instance is not None:
        concern = concern.or_else(in_headers)
    event_id = _valid_event_id(message.attributes.get("id") or event.get("id")) or message.message_id
    ids = ", ".join(f"{what} {which}" for what, which in (("event", event_id), ("asset", concern.asset_id)) if which)
    return UnreadableEvent(
        f"an event cannot be read ({ids or 'it has no id'}): {faults}. docs/messages.md describes the format",
        reason=reason,
        asset_id=concern.asset_id,
        event_id=event_id,
        instance=concern.instance,
        context=None if isinstance(error, RepeatedNames) else context_or_none(data.get("context")),
    )


def _data_in(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `data` of an event as far as it is an object."""
    data: object = event.get("data") if "specversion" in event else event
    if "data_base64" in event:
        try:
            data = _object(decode_base64(event["data_base64"]))
        except (ValueError, RecursionError):  # an image, or as unreadable as the event
            data = None
    return data if isinstance(data, dict) else {}


def _concern(message: _Message, event: Mapping[str, Any], data: Mapping[str, Any]) -> Concern:
    """What the event names in its data; where that is an image, or names none, in its attributes."""
    if message.is_image:
        attributes: Mapping[str, Any] = _fields_of_image(message)
    else:
        attributes = event if "specversion" in event or "data_base64" in event else {}
    in_attributes = concern_in({"asset_id": _asset_seen_in(attributes), "instance": attributes.get("instance")})
    return concern_in(data).or_else(in_attributes)


def _valid_event_id(value: object) -> str | None:
    try:
        return _EVENT_ID.validate_python(value, strict=True)
    except ValidationError:
        return None

"""Notifications of S3 services as events: what MinIO and Ceph's RADOS Gateway publish over AMQP, as they publish it.

A message has a list of records, in practice of one. The event's id is made of the object and its version, so that a
notification that is sent twice is one event. What is no new image is named by `why_ignored`: above all the tags that
we, or others, put on an object, which MinIO reports as a kind of creation.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote_plus

from pydantic import ValidationError

from worker.messages.events import EVENT_TYPE, Attributes, ContentRef, Event, EventData, ReadEvent
from worker.messages.oddities import OddField
from worker.messages.reading import with_trace_of
from worker.messages.repeated_names import refuse_repeated_names
from worker.messages.unreadable import FieldError, UnreadableEvent, explain

BUCKET_UNKNOWN: Final = "s3_bucket_unknown"

WhyIgnored = Literal["tagging", "removed", "folder", "other"]
WHYS_IGNORED: Final[tuple[WhyIgnored, ...]] = get_args(WhyIgnored)

_NAMESPACE: Final = uuid.UUID("2520b689-0c10-5c55-ad2b-9129f3dc36b3")  # UUIDv5 of the URL urn:autotag:s3-notifications
_MAXIMUM_BYTES: Final = 1 << 20
_MAXIMUM_RECORDS: Final = 1000
_NOT_OURS: Final = frozenset({"specversion", "asset_id", "data"})

_CREATED: Final = "ObjectCreated:"
_TAGGING: Final = frozenset({"PutTagging", "DeleteTagging", "PutRetention", "PutLegalHold", "PutAcl"})
"""What is reported as a creation and changes no byte of the object."""

_RAW_KEYS: Final = "ceph:"
"""The sources whose keys are as they are. All others encode them as in a form: a space is `+`."""


class S3Content(ContentRef):
    """An object that a notification names. It has no JSON form: no publisher may write one."""

    bucket: str
    """The bucket; its service is set in `sources.s3`."""
    key: str
    """The object's name, decoded."""
    version_id: str | None
    """Its version, in a bucket that keeps several."""

    @classmethod
    def of(cls, bucket: str, key: str, version_id: str | None = None) -> S3Content:
        """An object, of names that need no further check."""
        return cls.model_construct(bucket=bucket, key=key, version_id=version_id)

    @property
    def kind(self) -> Literal["path", "url", "base64", "body", "s3"]:
        """That it is an object."""
        return "s3"


@dataclass(frozen=True, slots=True)
class S3Part:
    """One of several records as a message of its own. The bucket is None where the record cannot be read."""

    message_id: str
    body: bytes = field(repr=False)
    bucket: str | None


@dataclass(frozen=True, slots=True)
class S3Notification:
    """The records of one message: those that may be events, as they are, and why the others are none."""

    records: tuple[Mapping[str, Any], ...] = field(repr=False)
    ignored: tuple[WhyIgnored, ...]

    @property
    def is_one_event(self) -> bool:
        """Whether it is one record, which may be an event."""
        return len(self.records) == 1 and not self.ignored

    def parts(self) -> Iterator[S3Part]:
        """Each record as a message of its own."""
        for record in self.records:
            body = json.dumps({"Records": [record]}).encode()
            try:
                found = _S3Object.of(record)
            except FieldError:
                yield S3Part(str(uuid.uuid5(_NAMESPACE, hashlib.sha256(body).hexdigest())), body, None)
            else:
                yield S3Part(found.id, body, found.bucket)


def s3_notification(body: bytes, message_id: str | None) -> S3Notification | None:
    """The notification in a message; None if it is none. Raises UnreadableEvent if it has a name twice."""
    if len(body) > _MAXIMUM_BYTES or b'"Records"' not in body or b'"s3"' not in body:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    records = found.get("Records") if isinstance(found, dict) and _NOT_OURS.isdisjoint(found) else None
    if not isinstance(records, list) or not records or not all(isinstance(each, dict) for each in records):
        return None
    if not isinstance(records[0].get("s3"), dict):
        return None
    about = f"message {message_id}"
    if len(records) > _MAXIMUM_RECORDS:
        many = FieldError(f"Records: has {len(records):,} records, at most {_MAXIMUM_RECORDS:,} are taken")
        raise _unreadable(many, about)
    try:
        refuse_repeated_names(body)
    except FieldError as error:
        raise _unreadable(error, about) from None
    whys = [why_ignored(each) for each in records]
    return S3Notification(
        tuple(each for each, why in zip(records, whys, strict=True) if why is None),
        tuple(why for why in whys if why is not None),
    )


def why_ignored(record: Mapping[str, Any]) -> WhyIgnored | None:
    """Why a record is no event; None if it is one, or cannot be read."""
    name = str(record.get("eventName", "")).removeprefix("s3:")
    if name.startswith(_CREATED):
        if name.removeprefix(_CREATED) in _TAGGING:
            return "tagging"
        try:
            return "folder" if _S3Object.of(record).key.endswith("/") else None
        except FieldError:
            return None  # it is refused when it is read
    if name.startswith("ObjectRemoved:"):
        return "removed"
    return "tagging" if name.startswith("ObjectTagging:") else "other"


def read_s3_event(
    record: Mapping[str, Any], headers: Mapping[str, object], instance_of: Callable[[str], str | None]
) -> ReadEvent:
    """The event of a record. `instance_of` has the instance that a bucket belongs to, or None for an unknown one.

    Raises UnreadableEvent with the reason `event_invalid`, or `s3_bucket_unknown`.
    """
    about = "a notification of an S3 service"
    try:
        found = _S3Object.of(record)
        about = f"the object {found.bucket}/{found.key}"
        instance = instance_of(found.bucket)
        if instance is None:
            raise UnreadableEvent(
                f"no table of `sources.s3` has the bucket {found.bucket!r}, of {about}", reason=BUCKET_UNKNOWN
            )
        return with_trace_of(headers, found.event(record, instance))
    except (ValidationError, FieldError) as error:
        raise _unreadable(error, about) from None


def _unreadable(error: ValidationError | FieldError, about: str) -> UnreadableEvent:
    reason, faults = explain(error, EVENT_TYPE)
    return UnreadableEvent(f"an event cannot be read ({about}): {faults}", reason=reason)


@dataclass(frozen=True, slots=True)
class _S3Object:
    """What a record says of an object."""

    source: str
    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    sequencer: str | None
    content_type: object

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> _S3Object:
        """The object of a record. Raises FieldError for what is not there."""
        s3 = _table(record, "s3")
        bucket, inner = _table(s3, "bucket", "s3."), _table(s3, "object", "s3.")
        source = _text(record, "eventSource")
        return cls(
            source=source,
            bucket=_text(bucket, "name", "s3.bucket."),
            key=_decoded(_text(inner, "key", "s3.object."), source),
            version_id=_optional(inner, "versionId"),
            etag=_optional(inner, "eTag"),
            sequencer=_optional(inner, "sequencer"),
            content_type=inner.get("contentType"),
        )

    @property
    def id(self) -> str:
        """The same for each notification of one version of the object."""
        parts = [self.source, self.bucket, self.key, self.version_id or self.etag, self.sequencer]
        return str(uuid.uuid5(_NAMESPACE, json.dumps(parts, ensure_ascii=False, separators=(",", ":"))))

    def event(self, record: Mapping[str, Any], instance: str) -> ReadEvent:
        """The event. Raises ValidationError for what cannot be one: a key that is too long, a control character."""
        odd: list[OddField] = []
        attributes = Attributes.model_validate(
            {
                "specversion": "1.0",
                "id": self.id,
                "source": self.source,
                "type": EVENT_TYPE,
                "time": record.get("eventTime"),
            },
            context=odd,
        )
        known = {"source": self.source, "bucket": self.bucket, "key": self.key}
        versions = {"version_id": self.version_id, "etag": self.etag, "sequencer": self.sequencer}
        data = EventData.model_validate(
            {
                "asset_id": f"{self.bucket}/{self.key}",
                "instance": instance,
                "content": {"path": self.key},
                "file_name": self.key.rpartition("/")[2],
                "mime_type": self.content_type,
                "context": {"s3": known | versions},
            },
            context=odd,
        )
        content = S3Content.of(self.bucket, self.key, self.version_id)
        event = Event.model_construct(**dict(attributes), data=data.model_copy(update={"content": content}))
        return ReadEvent(event, None, tuple(dict.fromkeys(odd)))


def _decoded(key: str, source: str) -> str:
    """A key as its object has it (MinIO encodes it, though its top-level `Key` is not; Ceph does not)."""
    if source.startswith(_RAW_KEYS):
        return key
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise FieldError("s3.object.key: is not UTF-8 once it is decoded") from None


def _table(fields: Mapping[str, Any], name: str, above: str = "") -> Mapping[str, Any]:
    found = fields.get(name)
    if not isinstance(found, dict):
        raise FieldError(f"{above}{name}: must be an object")
    return found


def _text(fields: Mapping[str, Any], name: str, above: str = "") -> str:
    found = fields.get(name)
    if not isinstance(found, str) or not found:
        raise FieldError(f"{above}{name}: must be a text that is not empty")
    return _whole(found, f"{above}{name}")


def _optional(fields: Mapping[str, Any], name: str) -> str | None:
    """A text that need not be there; Ceph writes an empty one for a version that is none."""
    found = fields.get(name)
    return _whole(found, name) if isinstance(found, str) and found else None


def _whole(text: str, name: str) -> str:
    """The text. Raises FieldError if it holds half a character, which JSON can write."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise FieldError(f"{name}: holds what is not text in UTF-8")
    return text

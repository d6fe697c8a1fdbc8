"""Results: what is published to the DMS about an image, and the AMQP message it is published in.

The body is a CloudEvent in structured mode. Its id, which is also the AMQP `message_id`, stands for the result's bytes,
measured times and trace apart: the same event, image, settings and replies produce the same id, so the DMS can drop
the second result of a redelivered event; where a provider replied otherwise, the id is another one.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from worker.messages.events import CLOUDEVENTS_JSON
from worker.messages.fields import AssetId, InstanceName

if TYPE_CHECKING:
    from worker.messages.events import Event

RESULT_TYPE: Final = "dms.image.tagged.v1"
NAMESPACE = uuid.UUID("54ed932b-6bc6-5af4-8086-15389ee6ba43")
"""The namespace of result ids: itself the UUIDv5 of the URL `urn:autotag:results`."""

CONFIDENCE_DECIMALS = 4
DURATION_DECIMALS = 4

ResultStatus = Literal["tagged", "no_tags", "skipped", "failed"]
TagKind = Literal["label", "parent", "object", "image_kind"]
ProviderStatus = Literal["ok", "skipped", "failed", "unavailable"]

_CONFIG = ConfigDict(use_attribute_docstrings=True, json_schema_serialization_defaults_required=True)


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag for the asset."""

    __pydantic_config__ = _CONFIG

    name: str
    """The name to show."""
    confidence: Annotated[float, Field(ge=0, le=1)]
    """From 0 to 1, at most four decimals."""
    provider: str
    """The provider that suggested it: `tensorflow`, `google_cloud_vision`, `microsoft_vision`."""
    concept: str | None = None
    """What it means, whatever the language: an id such as `wn:02123159-n`; null for a name that is none of ours."""
    kind: TagKind = "label"
    """`label`: what a model or service named; `parent`: a broader term; `object`: something found in the picture;
    `image_kind`: what kind of picture it is."""
    language: str | None = None
    """Of the name, as ISO 639 has it; null where the provider, or a rule of the instance, gave the name as it is."""
    models: tuple[str, ...] = ()
    """Where more than one of the local models suggests it, their names."""


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """The outcome of asking one provider."""

    __pydantic_config__ = _CONFIG

    name: str
    """The provider."""
    status: ProviderStatus
    """`unavailable`: the provider was down until the last attempt; the image itself was not judged."""
    reason: str | None = None
    """A fixed word for programs, if the status is not `ok`."""
    message: str | None = None
    """The same for people; if the status is `ok`, what is missing from an incomplete answer."""
    model: str | None = None
    """What answered: the name and version of the model, or of the service's API."""
    duration_s: Annotated[float, Field(ge=0)] | None = None
    """Seconds the provider took; null too where it was not asked, because the image is a near-duplicate."""
    near_duplicate_of: str | None = None
    """The asset id of an earlier image that looks the same, where the provider's suggestions are those about that one;
    null where it was asked about this image itself."""
    distance: Annotated[int, Field(ge=0, le=64)] | None = None
    """In how many bits the perceptual hashes of the two differ; null likewise."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the decoder detected, regardless of the file's name."""

    __pydantic_config__ = _CONFIG

    format: str
    """The format: `JPEG`, `PNG`, `HEIF`, ...; of a raw photograph its own: `NEF`, `DNG`, ..."""
    width: Annotated[int, Field(ge=1)]
    """In pixels, with the EXIF orientation applied; of a raw photograph, that of its preview."""
    height: Annotated[int, Field(ge=1)]
    """In pixels, with the EXIF orientation applied."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the file's bytes."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one image: the `data` of a result."""

    __pydantic_config__ = _CONFIG

    asset_id: AssetId
    """From the event."""
    instance: InstanceName
    """From the event."""
    event_id: str | None
    """The id of the event this answers; null if it could not be read from the event."""
    status: ResultStatus
    """`no_tags`: examined, but no tag was certain enough. `skipped`: not to be examined. `failed`: cannot be tagged."""
    reason: str | None = None
    """A fixed word for programs, if the status is `skipped` or `failed`."""
    message: str | None = None
    """The same for people."""
    tags: tuple[Tag, ...] = ()
    """Best first, ties by name."""
    providers: tuple[ProviderReport, ...] = ()
    """One entry for each provider that was asked, or would have been."""
    complete: bool = True
    """False while a provider has not answered yet: another result for the same event will replace this one."""
    image: ImageFacts | None = None
    """Null when the image was not decoded."""
    context: dict[str, Any] | None = field(default=None, repr=False, hash=False)
    """From the event, as it was; null if it had none. Not a part of the result's id."""


class ResultEvent(BaseModel):
    """A published result: a CloudEvent in structured mode."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    specversion: Literal["1.0"]
    id: str
    """UUIDv5 of the content; the same for a redelivered event that got the same replies. Also the `message_id`."""
    source: str
    """The service that produced the result: `autotag` unless it is configured with another name."""
    type: Literal["dms.image.tagged.v1"]
    subject: str
    """The asset id."""
    time: AwareDatetime
    """When the result was written."""
    datacontenttype: Literal["application/json"]
    data: Result
    traceparent: str | SkipJsonSchema[None] = None
    """W3C trace context, from the event."""
    tracestate: str | SkipJsonSchema[None] = None
    """W3C trace context, from the event."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """An AMQP message ready to be published."""

    body: bytes
    content_type: str
    headers: dict[str, str]
    message_id: str
    routing_key: str


def result_data(result: Result) -> dict[str, Any]:
    """The result in its JSON form: every field present, tags best first, numbers rounded."""
    tags: list[dict[str, Any]] = [
        _fields(tag) | {"confidence": round(tag.confidence, CONFIDENCE_DECIMALS), "models": list(tag.models)}
        for tag in result.tags
    ]
    providers = [_fields(report) for report in result.providers]
    for report in providers:
        if report["duration_s"] is not None:
            report["duration_s"] = round(report["duration_s"], DURATION_DECIMALS)
    # Ordered by the rounded values: two tags that differ only past the last decimal are a tie.
    tags.sort(key=lambda tag: (-tag["confidence"], tag["name"].casefold(), tag["name"], tag["provider"]))
    return {
        "asset_id": result.asset_id,
        "instance": result.instance,
        "event_id": result.event_id,
        "status": result.status,
        "reason": result.reason,
        "message": result.message,
        "tags": tags,
        "providers": providers,
        "complete": result.complete,
        "image": _fields(result.image) if result.image else None,
        "context": result.context,
    }


def _fields(flat: Tag | ProviderReport | ImageFacts) -> dict[str, Any]:
    """What `asdict` returns for a dataclass without nested ones, in a fifth of the time."""
    return {name: getattr(flat, name) for name in flat.__slots__}


def write_result(
    result: Result,
    *,
    event: Event | None,
    settings_digest: str,
    source: str = "autotag",
    time: datetime | None = None,
) -> OutgoingMessage:
    """The message to publish. `event` is None for one that could not be read; `time` defaults to now.

    Except for `time` and the providers' `duration_s`, equal arguments produce equal bytes (see `comparable`).
    """
    data = result_data(result)
    message_id = str(_id_of(data, event.source if event else None, settings_digest))
    trace = _trace(event)
    envelope = {
        "specversion": "1.0",
        "id": message_id,
        "source": source,
        "type": RESULT_TYPE,
        "subject": result.asset_id,
        "time": (time or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        **trace,
        "data": data,
    }
    return OutgoingMessage(
        body=_json(envelope),
        content_type=CLOUDEVENTS_JSON,
        headers=trace,
        message_id=message_id,
        routing_key=f"{routing_word(result.instance)}.{result.status}",
    )


def routing_word(instance: str) -> str:
    """An instance's name in a routing key, where dots separate words: `acme.tagged` must not match `acme.#`.

    No name holds a colon. One character for another, because a key has at most 255 bytes.
    """
    return instance.replace(".", ":")


def read_result(body: bytes) -> Result:
    """The result in a message that `write_result` wrote. Raises ValueError for anything else."""
    return ResultEvent.model_validate_json(body).data


def result_id(result: Result, event_source: str | None, settings_digest: str) -> uuid.UUID:
    """A UUIDv5 in `NAMESPACE` of all that the published result says, so that one id stands for one set of bytes.

    The name is a JSON array without spaces: event source, settings digest, and the result's data without `context` and
    with every `duration_s` null. What is measured and the trace are left out: they differ whenever an event is handled
    again. The context is the publisher's, and an event that is sent again may have another one.
    """
    return _id_of(result_data(result), event_source, settings_digest)


def _id_of(data: dict[str, Any], event_source: str | None, settings_digest: str) -> uuid.UUID:
    unmeasured = data | {"providers": [report | {"duration_s": None} for report in data["providers"]]}
    del unmeasured["context"]
    return uuid.uuid5(NAMESPACE, _json([event_source, settings_digest, unmeasured]).decode())


def comparable(body: bytes) -> bytes:
    """A result's body without measured values, so that two results with one id can be compared byte by byte."""
    envelope = json.loads(body)
    envelope["time"] = None
    if "traceparent" in envelope:
        envelope["traceparent"] = None  # the span of this attempt, if spans are recorded
    for report in envelope["data"]["providers"]:
        report["duration_s"] = None
    return _json(envelope)


def _trace(event: Event | None) -> dict[str, str]:
    pairs = {"traceparent": event.traceparent, "tracestate": event.tracestate} if event else {}
    return {name: value for name, value in pairs.items() if value is not None}


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _json(value: object) -> bytes:
    # A file name that is not UTF-8 ends up here as lone surrogates, which no JSON reader accepts: they become "?".
    return _ENCODER.encode(value).encode(errors="replace")

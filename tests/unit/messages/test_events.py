"""Events are read from every documented encoding, and from nothing else."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings import amqp, rabbitmq
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from worker.messages import Event, UnreadableEvent, read_event
from worker.messages.examples import ATTRIBUTES, EVENT, EVENT_DATA, HEADERS, IMAGE_HEADERS

STRUCTURED = "application/cloudevents+json"
JPEG = b"\xff\xd8\xff\xe0 and so on"
TRACEPARENT = "00-11111111111111111111111111111111-2222222222222222-01"


def body(**changes: object) -> bytes:
    return json.dumps(EVENT | changes).encode()


def data(**changes: object) -> bytes:
    return json.dumps(EVENT_DATA | changes).encode()


def structured(raw: bytes) -> Event:
    return read_event(raw, STRUCTURED, {}, None).event


def refused(
    raw: bytes,
    content_type: str | None = STRUCTURED,
    headers: Mapping[str, object] | None = None,
    message_id: str | None = None,
) -> UnreadableEvent:
    with pytest.raises(UnreadableEvent) as caught:
        read_event(raw, content_type, headers or {}, message_id)
    return caught.value


def test_a_structured_event_is_read() -> None:
    event = structured(body())

    assert (event.id, event.source) == ("upload-34817-1", "/dms/documents")
    assert event.time == datetime(2026, 1, 15, 9, 29, 58, tzinfo=UTC)
    assert event.traceparent == ATTRIBUTES["traceparent"]
    assert (event.data.asset_id, event.data.instance, event.data.site) == ("34817", "acme", "intranet")
    assert (event.data.content.kind, event.data.content.path) == ("path", "photos/2026/chelsea.png")


@pytest.mark.parametrize(
    ("content_type", "headers", "raw"),
    [
        (STRUCTURED, {}, body()),
        (f"{STRUCTURED}; charset=utf-8", {"cloudEvents:id": "ignored in structured mode"}, body()),
        ("application/json", {}, body()),
        (None, {}, body()),
        ("application/json", HEADERS, data()),
        (None, {name.replace(":", "_"): value.encode() for name, value in HEADERS.items()}, data()),
        ("application/json", {name.replace("cloudEvents:", "ce-"): value for name, value in HEADERS.items()}, data()),
    ],
)
def test_every_encoding_of_an_event_gives_the_same_event(
    content_type: str, headers: dict[str, object], raw: bytes
) -> None:
    assert read_event(raw, content_type, headers, None).event == structured(body())


def test_plain_json_gets_its_id_from_the_message_or_else_from_its_bytes() -> None:
    named = read_event(data(), "application/json", {}, "message-7").event
    unnamed, again, other = (read_event(raw, None, {}, None).event for raw in (data(), data(), data(asset_id="2")))

    assert (named.id, named.source) == ("message-7", "plain")
    assert unnamed.id == again.id != other.id


@pytest.mark.parametrize("headers", [IMAGE_HEADERS, HEADERS | {"cloudEvents:subject": "34820"}])
def test_a_body_of_an_image_type_is_the_image(headers: dict[str, object]) -> None:
    read = read_event(JPEG, "image/jpeg", headers, None)

    assert read.image_bytes is JPEG
    assert (read.event.data.asset_id, read.event.data.content.kind) == ("34820", "body")
    assert read.event.data.content.is_body


def test_an_image_without_cloudevents_is_described_by_plain_headers() -> None:
    headers = {
        "asset_id": "7",
        "existing_tags": ["cat", "sofa"],
        "temporary": True,
        "file_name": b"a.jpg",
        "x-death": [{}],
    }

    read = read_event(JPEG, "image/jpeg", headers, "m1")

    assert read.event.data.model_dump(exclude={"content"}, exclude_defaults=True) == {
        "asset_id": "7",
        "file_name": "a.jpg",
        "existing_tags": ("cat", "sofa"),
        "temporary": True,
    }


def test_extension_attributes_describe_an_image_body() -> None:
    headers = IMAGE_HEADERS | {
        "cloudEvents:existingtags": '["cat, big"]',
        "cloudEvents:temporary": "false",
        "cloudEvents:site": "s",
    }

    found = read_event(JPEG, "image/jpeg", headers, None).event.data

    assert (found.existing_tags, found.temporary, found.site, found.instance) == (("cat, big",), False, "s", "acme")


def test_base64_gives_the_bytes_and_keeps_them_out_of_the_repr() -> None:
    content = {"base64": base64.b64encode(JPEG).decode()}

    read = read_event(body(data={"asset_id": "1", "content": content}), STRUCTURED, {}, None)

    assert read.image_bytes == JPEG
    assert "so on" not in repr(read)


def test_data_base64_is_an_image_or_json_as_its_content_type_says() -> None:
    without_data = {name: value for name, value in EVENT.items() if name != "data"}
    image = without_data | {
        "datacontenttype": "image/jpeg",
        "data_base64": base64.b64encode(JPEG).decode(),
        "assetid": "9",
    }
    wrapped = without_data | {"data_base64": base64.b64encode(data()).decode()}

    read = read_event(json.dumps(image).encode(), STRUCTURED, {}, None)

    assert (read.image_bytes, read.event.data.asset_id) == (JPEG, "9")
    assert structured(json.dumps(wrapped).encode()) == structured(body())


def test_null_means_absent_and_unknown_fields_are_ignored() -> None:
    nulls = dict.fromkeys(("instance", "existing_tags", "temporary", "file_name", "site"))
    event = structured(
        body(extension=1, data={"asset_id": "1", "content": {"path": "a", "url": None}, "new": {}} | nulls)
    )

    assert event.data.model_dump(exclude_defaults=True, exclude={"content"}) == {"asset_id": "1"}


def test_the_trace_context_of_the_message_takes_precedence_over_that_of_the_event() -> None:
    overridden = read_event(body(), STRUCTURED, {"traceparent": TRACEPARENT.encode(), "tracestate": "a=b"}, None).event
    broken = read_event(body(), STRUCTURED, {"traceparent": "rubbish"}, None).event

    assert (overridden.traceparent, overridden.tracestate) == (TRACEPARENT, "a=b")
    assert broken.traceparent == ATTRIBUTES["traceparent"]


def test_a_malformed_trace_context_stops_no_event() -> None:
    assert structured(body(traceparent="00-" + "0" * 32 + "-2222222222222222-01")).traceparent is None
    assert structured(body(traceparent=5, tracestate="x" * 513)).tracestate is None


@pytest.mark.parametrize("value", [1768469398000, datetime(2026, 1, 15, 9, 29, 58), "2026-01-15T09:29:58Z"])  # noqa: DTZ001 - as pika gives it
def test_an_amqp_time_is_read_as_utc(value: object) -> None:
    event = read_event(data(), "application/json", HEADERS | {"cloudEvents:time": value}, None).event

    assert event.time == datetime(2026, 1, 15, 9, 29, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    "raw",
    [b"", b"not json", b"\xff\xfe{}", b"{", b"[" * 100_000, b'{"a":' * 100_000, b'{"specversion":' * 100_000, JPEG],
)
@pytest.mark.parametrize("content_type", [STRUCTURED, "application/json", None])
def test_a_body_that_is_not_json_is_refused(raw: bytes, content_type: str | None) -> None:
    assert refused(raw, content_type).reason == "event_not_json"


def test_an_unknown_type_is_refused_for_its_type_whatever_its_data_is() -> None:
    error = refused(body(type="dms.user.created.v1", data={"user": 1}))

    assert error.reason == "event_type_unknown"
    assert "dms.user.created.v1" in str(error)
    assert "dms.image.uploaded.v1" in str(error)
    assert refused(b"any", "text/plain", HEADERS | {"cloudEvents:type": "other"}).reason == "event_type_unknown"


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"[1, 2]", "event"),
        (b"null", "event"),
        (body(specversion="0.3"), "specversion"),
        (body(id=""), "id"),
        (body(data="text"), "data"),
        (body(data=None), "data"),
        (body(data={"asset_id": "1"}), "data.content"),
        (body(data={"asset_id": True, "content": {"path": "a"}}), "data.asset_id"),
        (body(data={"asset_id": "a\nb", "content": {"path": "a"}}), "data.asset_id"),
        (body(data={"asset_id": "1", "content": {"path": "a\0b"}}), "data.content.path"),
        (body(data={"asset_id": "1", "content": {}}), "exactly one of path, url and base64"),
        (body(data={"asset_id": "1", "content": {"path": "a", "url": "b"}}), "exactly one of path, url and base64"),
        (body(data={"asset_id": "1", "content": {"body": True}}), "exactly one of path, url and base64"),
        (body(data={"asset_id": "1", "content": {"base64": "aGVs\nbG8="}}), "data.content.base64"),
        (body(data={"asset_id": "1", "content": {"base64": "aGVsbG8"}}), "data.content.base64"),
        (body(data={"asset_id": "1", "content": {"base64": ""}}), "data.content.base64: is empty"),
        (body(data=EVENT_DATA | {"instance": "two words"}), "data.instance"),
        (body(data=EVENT_DATA | {"temporary": "yes"}), "data.temporary"),
        (body(data=EVENT_DATA | {"existing_tags": "cat"}), "data.existing_tags"),
        (body(data_base64="%%%"), "data_base64"),
    ],
)
def test_json_of_another_shape_is_refused_and_the_field_is_named(raw: bytes, named: str) -> None:
    error = refused(raw)

    assert error.reason == "event_invalid"
    assert named in str(error)


@pytest.mark.parametrize("kind", ["application/cloudevents-batch+json", "application/cloudevents+avro"])
def test_other_cloudevents_formats_are_refused(kind: str) -> None:
    assert "application/cloudevents+json" in str(refused(b"[]", kind))


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({}, "assetid"),
        (HEADERS, "assetid"),
        (IMAGE_HEADERS | {"cloudEvents:existingtags": "cat,sofa"}, "existingtags"),
        (IMAGE_HEADERS | {"cloudEvents:temporary": "perhaps"}, "temporary"),
        ({name: value for name, value in IMAGE_HEADERS.items() if name != "cloudEvents:id"}, "id"),
    ],
)
def test_an_image_whose_headers_are_incomplete_or_invalid_is_refused(headers: dict[str, object], named: str) -> None:
    error = refused(JPEG, "image/jpeg", headers)

    assert error.reason == "event_invalid"
    assert named in str(error)


def test_what_could_be_read_of_an_invalid_event_names_its_asset() -> None:
    error = refused(body(data={"asset_id": "42", "instance": "acme", "content": {}}))
    result = error.result()

    assert (error.asset_id, error.event_id, error.instance) == ("42", "upload-34817-1", "acme")
    assert (result.asset_id, result.event_id, result.instance, result.status) == (
        "42",
        "upload-34817-1",
        "acme",
        "failed",
    )
    assert result.reason == "event_invalid"
    assert "asset 42" in str(error)


def test_the_attributes_of_an_invalid_event_with_an_image_name_its_asset() -> None:
    without_data = {name: value for name, value in EVENT.items() if name != "data"}
    image = {"datacontenttype": "image/jpeg", "data_base64": "%%%", "assetid": "asset-7", "instance": "acme"}
    error = refused(json.dumps(without_data | image).encode())
    assert (error.asset_id, error.instance, error.event_id) == ("asset-7", "acme", EVENT["id"])


def test_the_headers_of_an_invalid_image_event_name_its_asset() -> None:
    error = refused(JPEG, "image/jpeg", IMAGE_HEADERS | {"cloudEvents:existingtags": "x"})

    assert (error.asset_id, error.event_id, error.instance) == ("34820", "upload-34817-1", "acme")


@pytest.mark.parametrize("headers", [{"asset_id": "7", "instance": "acme"}, {"subject": "7", "instance": "acme"}])
def test_the_headers_of_an_invalid_plain_image_name_its_asset(headers: dict[str, object]) -> None:
    error = refused(JPEG, "image/jpeg", headers | {"existing_tags": "x"})

    assert (error.asset_id, error.instance) == ("7", "acme")


def test_an_event_without_a_readable_asset_has_no_result() -> None:
    error = refused(body(data={"asset_id": "bad\nid", "content": {}}), message_id="m")

    assert error.asset_id is None
    with pytest.raises(ValueError, match="asset id"):
        error.result()


def test_a_refusal_shows_no_values() -> None:
    secret = "https://dms.example/?token=s3cr3t" + "x" * 10_000
    error = refused(body(data={"asset_id": "1", "content": {"url": secret, "path": "p"}, "site": [secret]}))

    assert "s3cr3t" not in str(error)
    assert len(str(error)) < 1500


@given(st.binary(max_size=200), st.sampled_from([STRUCTURED, "application/json", "image/png", "text/plain", "", None]))
def test_no_bytes_raise_anything_but_unreadable_event(raw: bytes, content_type: str | None) -> None:
    with contextlib.suppress(UnreadableEvent):
        read_event(raw, content_type, {"cloudEvents:id": raw} if raw[:1] < b"\x80" else {}, None)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([EVENT_DATA, EVENT]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*EVENT, *EVENT_DATA, "data_base64", "base64"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_no_json_raises_anything_but_unreadable_event(value: object) -> None:
    with contextlib.suppress(UnreadableEvent):
        read_event(json.dumps(value).encode(), STRUCTURED, {}, None)


def official(**changes: object) -> CloudEvent:
    attributes = ATTRIBUTES | {
        "time": datetime(2026, 1, 15, 9, 29, 58, tzinfo=UTC),
        "datacontenttype": "application/json",
    }
    return CloudEvent(attributes=attributes | changes, data=EVENT_DATA)


def test_an_event_written_by_the_official_package_is_read() -> None:
    binary, whole = amqp.to_binary_event(official()), amqp.to_structured_event(official())
    knative = rabbitmq.to_binary_event(official())

    expected = structured(body())
    assert (
        read_event(
            binary.application_data, binary.properties["content-type"], binary.application_properties, None
        ).event
        == expected
    )
    assert (
        read_event(whole.application_data, whole.properties["content-type"], whole.application_properties, None).event
        == expected
    )
    assert read_event(knative.body, knative.content_type, knative.headers, None).event == expected


def test_an_image_event_written_by_the_official_package_is_read() -> None:
    image = CloudEvent(
        attributes=ATTRIBUTES | {"time": datetime.now(UTC), "datacontenttype": "image/jpeg", "subject": "34817"},
        data=JPEG,
    )
    binary, whole = amqp.to_binary_event(image), amqp.to_structured_event(image)

    for message in (binary, whole):
        read = read_event(
            message.application_data, message.properties["content-type"], message.application_properties, None
        )
        assert (read.image_bytes, read.event.data.asset_id) == (JPEG, "34817")

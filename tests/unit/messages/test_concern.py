"""Whom a failed result can be sent to about an event that cannot be read, and when there is none."""

from __future__ import annotations

import base64
import json

import pytest

from worker.messages import EVENT_TYPE, UnreadableEvent, read_event

STRUCTURED = "application/cloudevents+json"
ATTRIBUTES = {"specversion": "1.0", "id": "e1", "source": "/dms", "type": EVENT_TYPE}
BINARY: dict[str, object] = {f"cloudEvents:{name}": value for name, value in ATTRIBUTES.items()}
NAMED = BINARY | {"cloudEvents:assetid": "a1", "cloudEvents:instance": "acme"}
PLAIN: dict[str, object] = {"asset_id": "a1", "instance": "acme"}


def refused(body: bytes, headers: dict[str, object], content_type: str | None = "application/json") -> UnreadableEvent:
    with pytest.raises(UnreadableEvent) as caught:
        read_event(body, content_type, headers, "m1")
    return caught.value


@pytest.mark.parametrize("headers", [NAMED, PLAIN], ids=["attributes", "plain headers"])
@pytest.mark.parametrize(
    "body",
    [
        b"{not json",
        b"",
        b"\xff\xfe\x00",
        b"\x80\x04",
        b"[" * 5000,
        b"[]",
        b"null",
        b'{"content": {"path": "x"}}',
        b'{"asset_id": true, "content": {"path": "x"}}',
        b'{"asset_id": "\xff", "content": {"path": "x"}}',
        b'{"asset_id": "b1", "asset_id": "b2", "content": {"path": "x"}}',
    ],
)
def test_headers_name_the_asset_of_a_body_that_names_none(body: bytes, headers: dict[str, object]) -> None:
    error = refused(body, headers)
    assert (error.asset_id, error.instance) == ("a1", "acme")
    result = error.result()
    assert (result.status, result.asset_id, result.instance, result.reason) == ("failed", "a1", "acme", error.reason)


@pytest.mark.parametrize(
    "body",
    [
        b'{"asset_id": "a1", "instance": "acme", "content": {"path": "x"},}',
        b'{"asset_id": "a1", "instance": "acme", "content": {"pa',
        b'{"data": {"instance": "acme", "asset_id" : "a1" "content": 5}}',
        b'{"asset_id": "a1", "instance": "acme", "context": ' + b"[" * 5000,
        b'{"asset_id": "a1", "instance": "acme", "content": NOTHING, "context": {"asset_id": "a1"}}',
    ],
)
def test_broken_json_names_its_asset_where_it_says_so_once(body: bytes) -> None:
    error = refused(body, {})
    assert (error.reason, error.asset_id, error.instance) == ("event_not_json", "a1", "acme")


@pytest.mark.parametrize(
    "body",
    [
        b'{"asset_id": "a1", "context": {"asset_id": "a2"},}',
        b'{"asset_id": "a\\u0031", "context": {"asset_id": "a2"},}',
        b'{"asset_id": 5.5,}',
        b'{"note": "\\"asset_id\\": \\"a1\\"",}',
        b'{"asset_id": "a1","asset_id": "a2", "content": {"path": "x"}}',
    ],
)
def test_where_it_contradicts_itself_no_asset_is_named(body: bytes) -> None:
    assert refused(body, {}).asset_id is None


def test_an_event_that_has_its_instance_twice_is_answered_only_where_its_headers_name_one() -> None:
    body = b'{"asset_id": "a1", "instance": "b", "instance": "c", "content": {"path": "x"}}'
    assert refused(body, {"asset_id": "a1"}).asset_id is None
    assert refused(body, PLAIN).instance == "acme"


def test_a_readable_body_is_believed_before_its_headers() -> None:
    error = refused(b'{"asset_id": "b1", "content": 5}', PLAIN)
    assert (error.asset_id, error.instance) == ("b1", None)


@pytest.mark.parametrize("data", ["text", None, 5, []])
def test_the_subject_names_the_asset_where_the_data_is_no_object(data: object) -> None:
    body = json.dumps(ATTRIBUTES | {"subject": "a1", "instance": "acme", "data": data}).encode()
    error = refused(body, {}, STRUCTURED)
    assert (error.asset_id, error.instance, error.event_id) == ("a1", "acme", "e1")


@pytest.mark.parametrize("in_headers", [True, False])
def test_the_subject_of_an_event_of_others_is_no_asset(in_headers: bool) -> None:
    order = ATTRIBUTES | {"type": "com.example.order.created", "subject": "4711", "instance": "acme"}
    if in_headers:
        headers: dict[str, object] = {f"cloudEvents:{name}": value for name, value in order.items()}
        found = [
            refused(body, headers, kind) for body, kind in ((b"{}", None), (b"<a/>", "text/xml"), (b"x", "image/png"))
        ]
    else:
        found = [refused(json.dumps(order | {"data": {"total": 5}}).encode(), {}, STRUCTURED)]
    assert {(error.reason, error.asset_id) for error in found} == {("event_type_unknown", None)}


def test_a_later_version_of_our_own_event_is_answered() -> None:
    later = ATTRIBUTES | {"type": "dms.image.uploaded.v2", "subject": "a1", "instance": "acme", "data": {}}
    error = refused(json.dumps(later).encode(), {}, STRUCTURED)
    assert (error.reason, error.asset_id, error.instance) == ("event_type_unknown", "a1", "acme")


def test_data_in_base64_names_its_asset() -> None:
    data = base64.b64encode(json.dumps({"asset_id": "a1", "instance": "acme", "content": 5}).encode()).decode()
    error = refused(json.dumps(ATTRIBUTES | {"data_base64": data}).encode(), {}, STRUCTURED)
    assert (error.asset_id, error.instance) == ("a1", "acme")

"""Whatever a publisher sends is an event or an `UnreadableEvent` with a reason, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.messages import UnreadableEvent, read_event

PLAIN = "application/json"
STRUCTURED = "application/cloudevents+json"

_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
_fields = st.sampled_from(
    ["specversion", "id", "source", "type", "data", "data_base64", "asset_id", "instance", "content", "existing_tags"]
)
_header_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
_header_names = st.sampled_from(
    ["cloudEvents:id", "cloudEvents:type", "ce-assetid", "assetid", "subject", "traceparent", "instance", "x-death"]
)


def refusal(body: bytes, content_type: str | None = PLAIN, headers: dict[str, object] | None = None) -> UnreadableEvent:
    with pytest.raises(UnreadableEvent) as refused:
        read_event(body, content_type, headers or {}, None)
    return refused.value


def reads_or_refuses(body: bytes, content_type: str | None, headers: dict[str, object]) -> None:
    try:
        read_event(body, content_type, headers, None)
    except UnreadableEvent as error:
        assert error.reason in {"event_invalid", "event_not_json", "event_type_unknown"}  # noqa: PT017 - or it is read


@given(
    st.dictionaries(_fields, _json_values),
    st.sampled_from([PLAIN, STRUCTURED, "image/jpeg", None]),
    st.dictionaries(_header_names, _header_values),
)
def test_any_json_and_any_headers_are_read_or_refused(
    fields: dict[str, object], content_type: str | None, headers: dict[str, object]
) -> None:
    reads_or_refuses(json.dumps(fields).encode(), content_type, headers)


@given(st.binary(), st.sampled_from([PLAIN, STRUCTURED, "image/jpeg", None]))
def test_any_bytes_are_read_or_refused(body: bytes, content_type: str | None) -> None:
    reads_or_refuses(body, content_type, {})


def _nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def _table(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


@pytest.mark.parametrize("value", [[b"\xff\xfe"], _nested(400), _nested(50_000), _table(400), _table(50_000)])
@pytest.mark.parametrize("name", ["cloudEvents:assetid", "assetid", "subject", "existingtags"])
def test_headers_that_have_no_form_as_text_are_refused_or_read(name: str, value: object) -> None:
    for content_type in ("image/jpeg", PLAIN):
        reads_or_refuses(b"{}", content_type, {name: value})


def test_a_strange_header_that_is_no_field_stops_no_image() -> None:
    read = read_event(b"image", "image/jpeg", {"assetid": "a1", "x-strange": [b"\xff"], "x-deep": _table(50_000)}, None)

    assert read.event.data.asset_id == "a1"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"asset_id":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"specversion":' + b"[" * 100_000,
        b'{"asset_id": ' + b"9" * 5000 + b"}",
        b'{"specversion": "1.0", "data_base64": ' + b"9" * 5000 + b', "id": ' + b"9" * 5000 + b"}",
        b'{"asset_id": NaN}',
        b'{"asset_id": "\\ud800", "content": {"path": "\\udfff"}}',
    ],
)
@pytest.mark.parametrize("content_type", [PLAIN, STRUCTURED, None])
def test_the_worst_bodies_are_refused(body: bytes, content_type: str | None) -> None:
    assert refusal(body, content_type).reason in {"event_invalid", "event_not_json"}


def test_a_repeated_name_is_refused_and_named_at_any_depth() -> None:
    error = refusal(b'{"asset_id": "a1", "content": {"path": "/good.jpg", "path": "/etc/passwd"}}')

    assert (error.reason, error.asset_id) == ("event_invalid", "a1")
    assert "'path': given more than once" in str(error)


@pytest.mark.parametrize(
    "twice",
    [
        b'{"asset_id": "a1", "asset_id": "a2", "content": {"path": "/a.jpg"}}',
        b'{"asset_id": "a1", "\\u0061sset_id": "a2", "content": {"path": "/a.jpg"}}',
        b'{"asset_id": "a1", "x": "' + b"A" * 2000 + b'", "asset_id": "a2", "content": {"path": "/a.jpg"}}',
        b'{"asset_id": "a1", "x": "\\"' + b"A" * 2000 + b'", "asset_id": "a2", "content": {"path": "/a.jpg"}}',
        b'{"asset_id": "a1", "instance": "one", "instance": "two", "content": {"path": "/a.jpg"}}',
    ],
)
def test_an_asset_or_instance_given_twice_is_told_of_nobody(twice: bytes) -> None:
    error = refusal(twice)

    assert (error.reason, error.asset_id, error.instance) == ("event_invalid", None, None)

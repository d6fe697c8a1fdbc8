"""A field that only informs stops no event, whatever is in it; one that decides does. The schema says the same."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.messages import EventData, ReadEvent, UnreadableEvent, read_event
from worker.messages.events import Attributes
from worker.messages.examples import ATTRIBUTES, HEADERS, IMAGE_HEADERS
from worker.messages.oddities import CONTENT_FIELDS, INFORMATIVE_FIELDS, OddField
from worker.messages.schemas import schemas

JSON = "application/json"
STRUCTURED = "application/cloudevents+json"
JPEG = b"\xff\xd8\xff\xe0 and so on"
PLAIN: dict[str, Any] = {"asset_id": "1", "content": {"path": "a.jpg"}}
NOTES = [each for each in INFORMATIVE_FIELDS if each != "time"]
VALIDATOR = jsonschema.Draft202012Validator(schemas()["event-data"])

ANY_JSON = st.recursive(
    # A larger float may stand for several whole numbers; a schema cannot distinguish these.
    st.none() | st.booleans() | st.integers() | st.floats(-(2.0**52), 2.0**52) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def plain(**changes: Any) -> ReadEvent:
    return read_event(json.dumps(PLAIN | changes).encode(), JSON, {}, "m")


def event(**changes: Any) -> ReadEvent:
    return read_event(json.dumps(ATTRIBUTES | {"data": PLAIN} | changes).encode(), STRUCTURED, {}, None)


def odd(read: ReadEvent) -> set[tuple[str, str]]:
    return {(each.field, each.why) for each in read.oddities}


def test_the_fields_that_inform_are_the_ones_of_the_models() -> None:
    optional = {name for model in (EventData, Attributes) for name, field in model.model_fields.items()} - {
        *("asset_id", "instance", "content", "existing_tags", "temporary", "context"),
        *("specversion", "id", "source", "type", "traceparent", "tracestate"),
    }
    assert optional == set(INFORMATIVE_FIELDS)


@pytest.mark.parametrize("field", NOTES)
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "empty"),
        (" \t\n", "empty"),
        ({}, "empty"),
        ([], "empty"),
        ("a\nb", "unusable"),
        ("a\tb", "unusable"),
        ("\x1b[2J", "unusable"),
        ("x" * 1025, "unusable"),
        (["a"], "unusable"),
        ({"a": 1}, "unusable"),
        (False, "unusable"),
        (1.5, "unusable"),
    ],
)
def test_a_note_that_cannot_be_used_is_left_out_and_noted(field: str, value: object, why: str) -> None:
    read = plain(**{field: value})

    assert getattr(read.event.data, field) is None
    assert odd(read) == {(field, why)}


@pytest.mark.parametrize(
    "value", ["", "2026-01-15T09:29:58", "yesterday", "0000-00-00", {}, [1], True, "24:61", 10**30]
)
def test_a_time_that_is_none_or_has_no_zone_is_left_out(value: object) -> None:
    read = event(time=value)

    assert read.event.time is None
    assert {field for field, _ in odd(read)} == {"time"}


def test_a_time_in_a_header_is_left_out_in_the_same_way() -> None:
    read = read_event(json.dumps(PLAIN).encode(), JSON, HEADERS | {"cloudEvents:time": "2026-01-15T09:29:58"}, None)

    assert (read.event.time, odd(read)) == (None, {("time", "unusable")})


def test_what_is_as_described_is_not_noted() -> None:
    read = event(data=PLAIN | {"file_name": "Käse 猫.jpg", "locale": "de", "site": None, "existing_tags": []})

    assert read.event.data.file_name == "Käse 猫.jpg"
    assert read.oddities == ()


@pytest.mark.parametrize(
    "content",
    [
        {"path": "a.jpg", "url": ""},
        {"path": "a.jpg", "url": None, "base64": " "},
        {"path": "a.jpg", "url": [], "base64": {}},
    ],
)
def test_an_unused_place_of_the_image_may_be_empty(content: dict[str, object]) -> None:
    read = plain(content=content)

    assert (read.event.data.content.kind, read.event.data.content.path) == ("path", "a.jpg")
    assert {field for field, _ in odd(read)} <= {*CONTENT_FIELDS} - {"path"}


@pytest.mark.parametrize(
    ("field", "value", "read_as"),
    [
        ("asset_id", 4711, "4711"),
        ("asset_id", 9007199254740993, "9007199254740993"),
        ("asset_id", 5.0, "5"),
        ("instance", 20097, "20097"),
        ("site", 20121, "20121"),
        ("file_name", 7, "7"),
    ],
)
def test_a_whole_number_where_a_text_belongs_is_its_digits(field: str, value: float, read_as: str) -> None:
    read = plain(**{field: value})

    assert getattr(read.event.data, field) == read_as
    assert odd(read) == {(field, "number")}


def test_a_numeric_id_of_an_event_is_its_digits() -> None:
    assert event(id=17).event.id == "17"


@pytest.mark.parametrize(("field", "default"), [("instance", "default"), ("existing_tags", ()), ("temporary", False)])
def test_an_empty_text_counts_as_null_where_a_field_is_optional(field: str, default: object) -> None:
    read = plain(**{field: ""})

    assert getattr(read.event.data, field) == default
    assert odd(read) == {(field, "empty")}


def test_an_empty_name_among_the_tags_of_an_asset_is_no_tag() -> None:
    assert plain(existing_tags=[""]).event.data.existing_tags == ()
    assert plain(existing_tags=["cat", " "]).event.data.existing_tags == ("cat",)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"asset_id": ""}, "asset_id"),
        ({"asset_id": True}, "asset_id"),
        ({"asset_id": 1.5}, "asset_id"),
        ({"asset_id": "a\nb"}, "asset_id"),
        ({"instance": "two words"}, "instance"),
        ({"temporary": "perhaps"}, "temporary"),
        ({"existing_tags": "cat"}, "existing_tags"),
        ({"content": {"path": "a", "url": "https://b/"}}, "exactly one"),
        ({"content": {"path": "", "url": ""}}, "exactly one"),
    ],
)
def test_a_field_that_decides_still_does(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UnreadableEvent, match=named):
        plain(**changes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("content_type", [JSON, STRUCTURED, None])
def test_json_with_a_byte_order_mark_is_read(encoding: str, content_type: str | None) -> None:
    body = json.dumps(ATTRIBUTES | {"data": PLAIN | {"file_name": "Käse.jpg"}}, ensure_ascii=False).encode(encoding)

    read = read_event(body, content_type, {}, None)

    assert (read.event.data.file_name, odd(read)) == ("Käse.jpg", {("body", "byte_order_mark")})


def test_data_in_base64_may_have_a_byte_order_mark() -> None:
    import base64

    inner = base64.b64encode(b"\xef\xbb\xbf" + json.dumps(PLAIN).encode()).decode()
    read = read_event(json.dumps(ATTRIBUTES | {"data_base64": inner}).encode(), STRUCTURED, {}, None)

    assert read.event.data.asset_id == "1"


@pytest.mark.parametrize(
    "name",
    [b"Pr\xfcfung.jpg", b"Pr\\udcfcfung.jpg", b"half \\ud83d of a pair.jpg", b"line\nbreak.jpg", b"tab\t.jpg"],
    ids=["latin-1", "surrogate", "half a pair", "bare line feed", "bare tab"],
)
def test_bytes_that_are_no_text_cost_only_the_field_that_they_are_in(name: bytes) -> None:
    body = b'{"asset_id": "k\xc3\xa4se", "file_name": "' + name + b'", "content": {"path": "a.jpg"}}'

    read = read_event(body, JSON, {}, None)

    assert (read.event.data.asset_id, read.event.data.file_name) == ("käse", None)
    assert odd(read) == {("file_name", "unusable")}


@pytest.mark.parametrize("field", ["asset_id", "path"])
def test_a_field_that_decides_and_is_no_text_is_refused_by_its_name(field: str) -> None:
    body = json.dumps({"asset_id": "1", "content": {"path": "a"}} | {"asset_id": "1"}).encode()
    broken = body.replace(b'"1"' if field == "asset_id" else b'"a"', b'"Pr\xfcfung"')
    with pytest.raises(UnreadableEvent, match=f"{field}: holds what is not text in UTF-8") as caught:
        read_event(broken, JSON, {}, None)
    assert caught.value.reason == "event_invalid"


def test_a_header_without_a_value_is_no_header() -> None:
    read = read_event(JPEG, "image/jpeg", IMAGE_HEADERS | {"cloudEvents:site": None, "cloudEvents:filename": ""}, None)

    assert (read.event.data.site, read.event.data.file_name) == (None, None)
    assert read_event(JPEG, "image/jpeg", {"asset_id": 5, "existing_tags": ""}, "m").event.data.asset_id == "5"


@given(st.dictionaries(st.sampled_from(NOTES), ANY_JSON), ANY_JSON)
def test_no_value_of_a_field_that_informs_stops_an_event(notes: dict[str, Any], time: object) -> None:
    read = event(data=PLAIN | notes, time=time)

    assert read.event.data.asset_id == "1"
    assert set(read.oddities) <= {
        OddField(field, why) for field in (*notes, "time") for why in ("empty", "unusable", "number")
    }


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*EventData.model_fields, "more"], ANY_JSON)))
def test_the_schema_takes_what_is_read_and_refuses_what_is_not(changes: dict[str, Any]) -> None:
    data = PLAIN | changes
    try:
        plain(**changes)
    except UnreadableEvent:
        assert not VALIDATOR.is_valid(data)
    else:
        VALIDATOR.validate(data)

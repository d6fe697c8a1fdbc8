"""The publisher's context comes back as it was, from every encoding, and is refused where it could not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import CannotBeDone
from worker.messages import UnreadableEvent, read_event, read_result, write_result
from worker.messages.event_context import MAXIMUM_CONTEXT_BYTES, MAXIMUM_CONTEXT_DEPTH, context_of
from worker.messages.examples import ATTRIBUTES, EVENT, EVENT_DATA, HEADERS, IMAGE_HEADERS, TAGGED
from worker.tagging import results
from worker.tagging.gates import Skip
from worker.tagging.results import Subject

STRUCTURED = "application/cloudevents+json"
CONTEXT = {"bucket": "b", "é": [1, 2.5, None, True, {"": "\0 and a line\n"}], "large": 10**30}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
objects = st.dictionaries(
    st.text(max_size=5),
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)),
    max_size=5,
)


def with_context(text: str) -> bytes:
    """A plain event with this JSON as its context."""
    plain = EVENT_DATA | {"context": "CONTEXT"}
    return json.dumps(plain).replace('"CONTEXT"', text).encode("utf-8", "surrogatepass")


def refusal(text: str) -> UnreadableEvent:
    with pytest.raises(UnreadableEvent) as refused:
        read_event(with_context(text), "application/json", {}, "m1")
    assert refused.value.reason == "event_invalid"
    return refused.value


def nested(depth: int) -> str:
    """A context so many levels deep."""
    return '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)


@pytest.mark.parametrize(
    ("content_type", "headers", "raw"),
    [
        (STRUCTURED, {}, json.dumps(EVENT | {"data": EVENT_DATA | {"context": CONTEXT}}).encode()),
        ("application/json", HEADERS, json.dumps(EVENT_DATA | {"context": CONTEXT}).encode()),
        ("application/json", {}, json.dumps(EVENT_DATA | {"context": CONTEXT}).encode()),
        ("image/png", IMAGE_HEADERS | {"cloudEvents:context": json.dumps(CONTEXT)}, b"image"),
        ("image/png", {"asset_id": "1", "context": json.dumps(CONTEXT)}, b"image"),
        ("image/png", {"asset_id": "1", "context": CONTEXT}, b"image"),
        (
            STRUCTURED,
            {},
            json.dumps(
                ATTRIBUTES | {"assetid": "1", "datacontenttype": "image/png", "data_base64": "AAAA", "context": CONTEXT}
            ).encode(),
        ),
    ],
)
def test_every_encoding_of_an_event_has_its_context(content_type: str, headers: dict[str, object], raw: bytes) -> None:
    event = read_event(raw, content_type, headers, None).event

    assert event.data.context == CONTEXT
    assert list(event.data.context or ()) == list(CONTEXT), "in the order in which it came"
    assert event.without_image().data.context == CONTEXT
    assert "bucket" not in repr(event), "it may hold what is nobody else's business"


@given(objects)
def test_a_result_has_the_context_of_its_event_unchanged(context: dict[str, Any]) -> None:
    if len(json.dumps(context)) > MAXIMUM_CONTEXT_BYTES // 2:
        return
    event = read_event(json.dumps(EVENT_DATA | {"context": context}).encode(), "application/json", {}, "m").event
    subject = Subject.of(event)
    for result in (
        results.skipped(subject, Skip("disabled", "it is off")),
        results.failed(subject, CannotBeDone("no", reason="no")),
    ):
        written = write_result(result, event=event, settings_digest="s")
        assert read_result(written.body).context == context
        assert json.dumps(json.loads(written.body)["data"]["context"]) == json.dumps(context)


@pytest.mark.parametrize("nothing", [None, "", " "])
def test_no_context_is_null_in_the_result(nothing: str | None) -> None:
    event = read_event(json.dumps(EVENT_DATA | {"context": nothing}).encode(), None, {}, "m").event

    assert event.data.context is None
    written = write_result(replace(TAGGED, context=None), event=event, settings_digest="s")
    assert json.loads(written.body)["data"]["context"] is None


def test_the_id_of_a_result_does_not_depend_on_the_context() -> None:
    event = read_event(json.dumps(EVENT).encode(), STRUCTURED, {}, None).event
    contexts: list[dict[str, Any] | None] = [None, {}, CONTEXT]

    ids = {
        write_result(replace(TAGGED, context=context), event=event, settings_digest="s").message_id
        for context in contexts
    }

    assert len(ids) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1]", "must be a JSON object"),
        ("7", "must be a JSON object"),
        ('"text"', "must be a JSON object"),
        ("true", "must be a JSON object"),
        (json.dumps({"a": "x" * MAXIMUM_CONTEXT_BYTES}), "has 4,104 bytes as JSON, at most 4,096"),
        (json.dumps({"a": "é" * 2045}, ensure_ascii=False), "has 4,098 bytes as JSON"),
        (nested(MAXIMUM_CONTEXT_DEPTH + 1), "nested more than 16 deep"),
        (nested(100), "nested more than 16 deep"),
        ('{"a": NaN}', "a number that JSON has no form for"),
        ('{"a": 1e999}', "a number that JSON has no form for"),
        ('{"a": "\\ud800"}', "not text in UTF-8"),
        ('{"\ud800": 1}', "not text in UTF-8"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c': given more than once in one object"),
    ],
)
def test_a_context_that_could_not_come_back_as_it_was_is_refused(text: str, why: str) -> None:
    error = refusal(text)

    assert why in str(error)
    assert (error.asset_id, error.context) == ("34817", None)


@pytest.mark.parametrize(
    "context", [{"a": "x" * (MAXIMUM_CONTEXT_BYTES - 8)}, {"a": "é" * 2044}, json.loads(nested(MAXIMUM_CONTEXT_DEPTH))]
)
def test_a_context_at_its_limits_is_carried(context: dict[str, Any]) -> None:
    assert context_of(json.loads(json.dumps(context))) == context


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_none_is_refused_wherever_it_is(number: float) -> None:
    with pytest.raises(ValueError, match="no form"):
        context_of({"a": [{"b": number}]})


@pytest.mark.parametrize("text", ["not JSON", "[1]", '{"a": 1, "a": 2}', "\ud800", "{" * 300])
def test_a_header_without_an_object_in_it_is_refused(text: str) -> None:
    with pytest.raises(UnreadableEvent) as refused:
        read_event(b"image", "image/png", {"asset_id": "1", "context": text}, "m1")

    assert refused.value.reason == "event_invalid"
    assert refused.value.asset_id == "1"


def test_the_result_of_an_event_that_cannot_be_read_has_its_context() -> None:
    raw = json.dumps(EVENT_DATA | {"context": CONTEXT, "content": {}}).encode()

    with pytest.raises(UnreadableEvent) as refused:
        read_event(raw, "application/json", {}, "m1")

    assert refused.value.result().context == CONTEXT

"""Numbers that no reader takes: the event is refused, and its asset is named all the same."""

from __future__ import annotations

import json

import pytest

from worker.messages import EVENT_TYPE, UnreadableEvent, read_event

DIGITS = "9" * 5000
ATTRIBUTES = {"specversion": "1.0", "id": "e1", "source": "/dms", "type": EVENT_TYPE}


def with_number(event: dict[str, object], number: str) -> bytes:
    return json.dumps(event).replace('"NUMBER"', number).encode()


@pytest.mark.parametrize("number", [DIGITS, "-" + DIGITS, DIGITS + ".5", "1e" + DIGITS])
@pytest.mark.parametrize("structured", [True, False])
def test_the_asset_of_an_event_with_a_number_of_many_digits_is_named(number: str, structured: bool) -> None:
    data: dict[str, object] = {"asset_id": "a1", "instance": "acme", "content": {"path": "NUMBER"}}
    event: dict[str, object] = {**ATTRIBUTES, "data": data} if structured else data
    content_type = "application/cloudevents+json" if structured else "application/json"
    with pytest.raises(UnreadableEvent) as refused:
        read_event(with_number(event, number), content_type, {}, "m1")
    assert (refused.value.asset_id, refused.value.instance) == ("a1", "acme")
    assert "asset a1" in str(refused.value)


def test_other_numbers_of_that_event_are_read_as_they_are() -> None:
    body = b'{"asset_id": 4711, "instance": 7, "context": {"site": 20117}, "content": {"path": %s}}' % DIGITS.encode()
    with pytest.raises(UnreadableEvent) as refused:
        read_event(body, "application/json", {}, "m1")
    error = refused.value
    assert (error.asset_id, error.instance, error.context) == ("4711", "7", {"site": 20117})


@pytest.mark.parametrize("digits", ["4711", "-5", "123456789012345678901234567890", "9" * 1024])
def test_an_asset_id_may_be_a_whole_number_of_any_size(digits: str) -> None:
    read = read_event(b'{"asset_id": %s, "content": {"path": "x"}}' % digits.encode(), "application/json", {}, "m1")
    assert read.event.data.asset_id == digits


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("true", "true or false"),
        ("5.5", "a number with a fraction"),
        ("9007199254740993.0", "not exact"),
        ("null", "null"),
        ("[1]", "an array"),
        ('{"id": 1}', "an object"),
    ],
)
def test_any_other_asset_id_is_refused_in_words(value: str, what: str) -> None:
    with pytest.raises(UnreadableEvent, match=f"asset_id: must be a text or a whole number, and is .*{what}"):
        read_event(b'{"asset_id": %s, "content": {"path": "x"}}' % value.encode(), "application/json", {}, "m1")

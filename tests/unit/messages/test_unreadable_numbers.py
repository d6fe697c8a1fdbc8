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

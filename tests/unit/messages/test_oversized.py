"""JSON that is larger than any event has to be is refused before it is parsed."""

from __future__ import annotations

import json

import pytest

from worker.messages.oversized import refuse_oversized
from worker.messages.unreadable import UnreadableEvent

IMAGE = 3 << 20
LARGEST = (4 << 20) + (1 << 20)


def event(**data: object) -> bytes:
    return json.dumps({"data": data}).encode()


def padded(body: bytes, size: int = LARGEST + 1) -> bytes:
    return body + b" " * (size - len(body))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (padded(event(asset_id="a"), LARGEST), "application/json"),
        (b"x" * (LARGEST + 1), "image/jpeg"),
        (b"x" * (LARGEST + 1), " Image/PNG; q=1"),
    ],
)
def test_what_an_event_may_have_is_let_through(body: bytes, content_type: str) -> None:
    refuse_oversized(body, content_type, {}, "m", IMAGE)


@pytest.mark.parametrize("content_type", ["application/json", "application/cloudevents+json", None, "text/plain"])
def test_more_is_refused_with_the_asset_and_instance_that_its_beginning_names(content_type: str | None) -> None:
    with pytest.raises(UnreadableEvent) as caught:
        refuse_oversized(
            padded(event(asset_id="Bild/ü", instance="acme").replace(b"\\u00fc", "ü".encode())),
            content_type,
            {"asset_id": "of the headers"},
            "m",
            IMAGE,
        )
    error = caught.value
    assert (error.reason, error.asset_id, error.instance, error.event_id) == ("event_too_large", "Bild/ü", "acme", "m")
    assert f"{LARGEST + 1:,} bytes" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b" " * (1 << 17) + event(asset_id="too far behind"),
        event(asset_id="a" * 1025),
        event(asset_id="line\nbreak"),
        b'{"data": {"asset_id": "\xff"}}',
        b'{"data": {"asset_id": 5.5}}',
        b'{"data": {"asset_id": "a"}, "context": {"asset_id": "b"}}',
        b'{"data": {"asset_id": "a\\u00e4"}, "context": {"asset_id": "b"}}',
        b"\x80\x04 no JSON at all",
    ],
)
def test_an_asset_that_cannot_be_told_is_not_made_up(body: bytes) -> None:
    with pytest.raises(UnreadableEvent) as caught:
        refuse_oversized(padded(body), "application/json", {}, None, IMAGE)
    assert caught.value.asset_id is None


@pytest.mark.parametrize(
    ("body", "headers", "named"),
    [
        (b'{"asset_id": 4711, "instance": 7}', {}, ("4711", "7")),
        (b"[]", {"asset_id": "a", "instance": "acme"}, ("a", "acme")),
        (b'{"instance": "acme"}', {"cloudEvents:id": "e", "cloudEvents:subject": "a"}, ("a", "acme")),
        (b"[]", {"ce-assetid": 4711}, ("4711", None)),
    ],
)
def test_a_number_names_an_asset_too_and_so_do_headers(
    body: bytes, headers: dict[str, object], named: tuple[str, str | None]
) -> None:
    with pytest.raises(UnreadableEvent) as caught:
        refuse_oversized(padded(body), "application/json", headers, None, IMAGE)
    assert (caught.value.asset_id, caught.value.instance) == named

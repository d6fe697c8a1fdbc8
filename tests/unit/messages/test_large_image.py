"""A large image in base64 is decoded apart from the rest; what is read is the same as it would be together."""

from __future__ import annotations

import base64
import binascii
import json
import random
from typing import Any

import pytest

from worker.messages import LargeImage, UnreadableEvent, large_image, read_event
from worker.messages.events import ReadEvent

IMAGE = bytes(range(256)) * 2000
TEXT = base64.b64encode(IMAGE).decode()
DATA: dict[str, Any] = {"asset_id": "a1", "content": {"base64": TEXT}, "existing_tags": ["cat"]}
STRUCTURED = {"specversion": "1.0", "id": "e1", "source": "/dms", "type": "com.autotag.image.uploaded"}


def image_in(read: ReadEvent) -> LargeImage:
    assert isinstance(read.image_bytes, LargeImage)
    return read.image_bytes


def events() -> dict[str, tuple[bytes, str | None, dict[str, str]]]:
    from worker.messages import EVENT_TYPE

    structured = STRUCTURED | {"type": EVENT_TYPE}
    binary = {f"cloudEvents:{name}": value for name, value in structured.items()}
    bodies = structured | {"data_base64": base64.b64encode(IMAGE).decode(), "datacontenttype": "image/jpeg"}
    return {
        "plain": (json.dumps(DATA).encode(), "application/json", {}),
        "structured": (json.dumps(structured | {"data": DATA}).encode(), "application/cloudevents+json", {}),
        "binary": (json.dumps(DATA).encode(), "application/json", binary),
        "image in data_base64": (json.dumps(bodies | {"assetid": "a1"}).encode(), "application/cloudevents+json", {}),
    }


@pytest.mark.parametrize("encoding", events())
def test_what_is_read_is_the_same_with_and_without_cutting(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, content_type, headers = events()[encoding]
    cut = read_event(body, content_type, headers, None)
    monkeypatch.setattr("worker.messages.reading.cut_image", lambda body: None)
    whole = read_event(body, content_type, headers, None)
    assert whole.image_bytes == b"".join(image_in(cut)) == IMAGE
    assert whole.event.data.content.kind == cut.event.data.content.kind
    assert whole.event.without_image() == cut.event.without_image()


def test_the_image_is_decoded_from_the_body_and_the_rest_is_small() -> None:
    cut = large_image.cut_image(json.dumps(DATA).encode())
    assert cut is not None
    assert len(cut.body) < 200
    assert b"".join(cut.image) == IMAGE
    assert large_image.cut_image(json.dumps(DATA | {"content": {"base64": "aGVsbG8="}}).encode()) is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"asset_id": TEXT}, "data.asset_id"),
        ({"content": {"base64": TEXT[:-1]}}, "data.content.base64"),
        ({"content": {"base64": TEXT + "===="}}, "data.content.base64"),
        ({"content": {"url": TEXT}}, "data.content.url"),
        ({"content": {"base64": TEXT, "path": "/a.jpg"}}, "data.content"),
        ({"existing_tags": TEXT}, "existing_tags"),
    ],
)
def test_errors_are_what_they_would_be_without_cutting(
    change: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps(DATA | change).encode()

    def outcome() -> object:
        try:
            return read_event(body, "application/json", {}, "m1")
        except UnreadableEvent as error:
            return error.reason, str(error)

    found = outcome()
    monkeypatch.setattr("worker.messages.reading.cut_image", lambda body: None)
    assert outcome() == found
    if isinstance(found, tuple):
        assert field.rpartition(".")[2] in found[1]


def test_a_publisher_cannot_write_the_placeholder_and_another_field_is_no_image() -> None:
    body = json.dumps({"asset_id": "a1", "note": TEXT, "content": {"base64": TEXT[:200_000] + "AA=="}}).encode()
    read = read_event(body, "application/json", {}, "m1")
    assert read.image_bytes == base64.b64decode(TEXT[:200_000] + "AA==")


@pytest.mark.parametrize("size", [98_304, 98_305, 98_306, 3 << 18, (3 << 18) + 1, (3 << 18) + 2])
def test_an_image_of_any_size_is_decoded_whole_and_says_its_size(size: int) -> None:
    image = random.Random(size).randbytes(size)
    cut = large_image.cut_image(b'"' + base64.b64encode(image) + b'"')
    assert cut is not None
    assert b"".join(cut.image) == image
    assert len(cut.image) == size


@pytest.mark.parametrize("text", [TEXT[:-1], TEXT[:-2] + "=", TEXT + "=", TEXT[:-3] + "="])
def test_what_is_not_base64_is_not_cut(text: str) -> None:
    assert len(text) > large_image.LARGE_BYTES
    with pytest.raises(binascii.Error):
        binascii.a2b_base64(text, strict_mode=True)
    assert large_image.cut_image(json.dumps(text).encode()) is None

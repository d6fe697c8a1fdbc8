"""Example messages, shown in the AsyncAPI document and in docs/messages.md. Tests validate them against the schemas."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from worker.messages.events import EVENT_TYPE
from worker.messages.results import ImageFacts, ProviderReport, Result, Tag

TIME = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

EVENT_DATA: dict[str, Any] = {
    "asset_id": "34817",
    "instance": "acme",
    "content": {"path": "photos/2026/chelsea.png"},
    "file_name": "chelsea.png",
    "mime_type": "image/png",
    "existing_tags": [],
    "temporary": False,
    "site": "intranet",
    "locale": "en-GB",
    "context": {"site": 20117, "version": "1.0"},
}

ATTRIBUTES: dict[str, str] = {
    "specversion": "1.0",
    "id": "upload-34817-1",
    "source": "/dms/documents",
    "type": EVENT_TYPE,
    "time": "2026-01-15T09:29:58Z",
    "traceparent": _TRACEPARENT,
}

EVENT: dict[str, Any] = {**ATTRIBUTES, "datacontenttype": "application/json", "data": EVENT_DATA}

EVENT_WITH_URL: dict[str, Any] = {
    **EVENT,
    "id": "upload-34818-1",
    "data": {"asset_id": "34818", "content": {"url": "https://dms.example/documents/34818?token=secret"}},
}

EVENT_WITH_BASE64: dict[str, Any] = {
    **EVENT,
    "id": "upload-34819-1",
    "data": {"asset_id": "34819", "content": {"base64": "R0lGODlhAQABAAAAACwAAAAAAQABAAAC"}},
}

HEADERS: dict[str, str] = {f"cloudEvents:{name}": value for name, value in ATTRIBUTES.items()}

IMAGE_HEADERS: dict[str, str] = {
    **HEADERS,
    "cloudEvents:assetid": "34820",
    "cloudEvents:instance": "acme",
    "cloudEvents:filename": "chelsea.png",
    "cloudEvents:existingtags": "[]",
}

TAGGED = Result(
    asset_id="34817",
    instance="acme",
    event_id="upload-34817-1",
    status="tagged",
    tags=(
        Tag("animal", 0.9731, "tensorflow", "wn:00015388-n", "parent", "en"),
        Tag("cat", 0.9642, "tensorflow", "wn:02121808-n", "parent", "en"),
    ),
    providers=(ProviderReport("tensorflow", "ok", model="efficientnet-lite2", duration_s=0.0312),),
    image=ImageFacts("PNG", 451, 300, "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    context={"site": 20117, "version": "1.0"},
)

SKIPPED = Result(
    asset_id="34817",
    instance="acme",
    event_id="upload-34817-1",
    status="skipped",
    reason="has_tags",
    message="the asset already has tags of its own (`tag_assets_that_have_tags` is off)",
)

FAILED = Result(
    asset_id="34817",
    instance="acme",
    event_id="upload-34817-1",
    status="failed",
    reason="image_truncated",
    message="asset 34817: the JPEG ends before its picture does; upload it again",
)

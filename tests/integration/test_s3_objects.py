"""Objects of real S3 services: signatures that another's code judges, odd keys, versions, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.s3_stores import STORES, S3Store
from worker.errors import AutotagError
from worker.messages import ContentRef, Event, EventData
from worker.messages.s3_notifications import S3Content
from worker.settings import SourcesSettings
from worker.sources import Sources

KEYS_OF_OBJECTS = (
    "a.jpg",
    "summer 2026/a+b é.jpg",
    "x(1)&=;,!'*$~@:[].jpg",
    "100%25.jpg",
    "a//b.jpg",
    "a/.../b.jpg",
    "漢字/😀.jpg",
    'quote"back\\slash^`{|}.jpg',
    "?query#fragment.jpg",
)


@pytest.fixture(scope="module", params=STORES)
def s3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with STORES[request.param](tmp_path_factory.mktemp(request.param)) as server:
        assert server.request("PUT", "/photos").status_code == 200
        yield server


@pytest.fixture
async def sources() -> AsyncIterator[Sources]:
    async with Sources(4) as opened:
        yield opened


def settings(s3: S3Store, **changes: Any) -> SourcesSettings:
    keys = {"access_key": s3.keys.access_key, "secret_key": s3.keys.secret_key}
    service = {"endpoint": s3.url, **keys, "buckets": ["photos"]}
    return SourcesSettings.model_validate({"s3": {"weed": service | changes}, "retries": 0})


def naming(key: str, version: str | None = None) -> Event:
    content = S3Content.model_construct(bucket="photos", key=key, version_id=version)
    data = EventData(asset_id="1", content=ContentRef(path="p")).model_copy(update={"content": content})
    return Event(specversion="1.0", id="e", source="s", type="dms.image.uploaded.v1", data=data)


@pytest.mark.parametrize("key", KEYS_OF_OBJECTS)
async def test_an_object_is_fetched_whatever_its_key_is(s3: S3Store, sources: Sources, key: str) -> None:
    s3.put("photos", key, key.encode())

    with await sources.open_content(naming(key), None, settings(s3)) as content:
        assert content.read().decode() == key


async def test_the_version_of_the_notification_is_fetched(s3: S3Store, sources: Sources) -> None:
    xml = b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status>'
    assert s3.request("PUT", "/photos?versioning=", xml + b"</VersioningConfiguration>").status_code == 200
    first = s3.put("photos", "v.jpg", b"first")
    s3.put("photos", "v.jpg", b"second")
    assert first

    with await sources.open_content(naming("v.jpg", first), None, settings(s3)) as content:
        assert content.read() == b"first"
    with await sources.open_content(naming("v.jpg"), None, settings(s3)) as content:
        assert content.read() == b"second"


@pytest.mark.parametrize(
    ("key", "changes", "reason"),
    [
        ("missing.jpg", {}, "content_missing"),
        ("a.jpg", {"secret_key": "another"}, "content_refused"),
        ("a.jpg", {"access_key": None, "secret_key": None}, "content_refused"),
        ("a.jpg", {"buckets": ["other"]}, "s3_bucket_unknown"),
        ("a.jpg", {"instance": "acme"}, "s3_bucket_unknown"),
    ],
)
async def test_what_cannot_be_fetched_has_a_reason(
    s3: S3Store, sources: Sources, key: str, changes: dict[str, Any], reason: str
) -> None:
    s3.put("photos", "a.jpg", b"image")

    with pytest.raises(AutotagError) as refused:
        await sources.open_content(naming(key), None, settings(s3, **changes))

    assert refused.value.reason == reason
    assert s3.keys.secret_key not in str(refused.value)

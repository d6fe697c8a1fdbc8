"""Listings of systems, page by page: of any REST API by the settings, and of a bucket.

A keyset listing: each page begins at the newest value of the page before, never at a page number, which would skip
items when others come or go. Only where a whole page has one and the same value, the next page of it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import quote
from xml.etree import ElementTree

from worker.connect.mapping import Address, Missing, Reading, Tree
from worker.connect.targets.base import TargetBusy, TargetRefused
from worker.connect.targets.client import TargetAnswer, TargetClient
from worker.connect.uploads import NotAnUpload, Upload, UploadMapping, digest
from worker.errors import AutotagError
from worker.settings import PollSettings
from worker.sources.retry_after import retry_after_s

TIMEOUT_S: Final = 60.0
_MAXIMUM_PAGES: Final = 1_000_000
_S3_PAGE: Final = 1000
_NOW: Final = "now"


class NoListing(AutotagError):
    """What came is no listing: a page of HTML, an object without the items, pages that never end."""


@dataclass(frozen=True, slots=True)
class Page:
    """Uploads of one page; `problems` are its items that can't be read. `cursor`: where the next listing may begin."""

    uploads: tuple[Upload, ...]
    passed_over: int
    problems: tuple[NotAnUpload, ...]
    cursor: str | None


class Listing(Protocol):
    """One kind of listing. Pages raise NoListing, TargetBusy or TargetRefused."""

    def pages(self, cursor: str | None) -> AsyncIterator[Page]:
        """All pages from a cursor on; None for the first listing ever."""
        ...


class RequestListing:
    """By the requests in the settings."""

    def __init__(
        self, name: str, url: str, settings: PollSettings, mapping: UploadMapping, client: TargetClient
    ) -> None:
        at = f"connect.{name}.poll"
        self._settings = settings
        self._mapping = mapping
        self._client = client
        self._address = Address(settings.path or "", url, f"{at}.path")
        self._body = Tree(settings.body, f"{at}.body") if settings.body else None
        self._items = Reading(settings.items, f"{at}.items")
        self._cursor = Reading(settings.cursor or "@", f"{at}.cursor")
        self._begin = _moment_now() if settings.begin == _NOW else settings.begin

    async def pages(self, cursor: str | None) -> AsyncIterator[Page]:
        """See `Listing`."""
        if cursor is None:
            yield Page((), 0, (), self._begin)  # kept at once: what comes while we are stopped is new
        position = _earlier(cursor, self._settings.overlap_s) if cursor is not None else self._begin
        number = 1
        for _ in range(_MAXIMUM_PAGES):
            items = await self._fetch(position, number)
            newest = self._newest(items)
            yield self._page(items, newest)
            if len(items) < self._settings.page_size:
                return
            if newest is not None and comparable(newest) > comparable(position):
                position, number = newest, 1
            else:
                number += 1
        raise NoListing(f"the listing has not ended after {_MAXIMUM_PAGES:,} pages", reason="listing_endless")

    def _page(self, items: list[Any], newest: str | None) -> Page:
        uploads, problems, passed_over = [], [], 0
        for item in items:
            try:
                upload = self._mapping.upload(item)
            except NotAnUpload as error:
                problems.append(error)
            else:
                passed_over += upload is None
                if upload is not None:
                    uploads.append(upload if upload.mark is not None else _marked(upload, item))
        return Page(tuple(uploads), passed_over, tuple(problems), newest)

    async def _fetch(self, position: str, number: int) -> list[Any]:
        scope = {"cursor": position, "page": number, "page_size": self._settings.page_size}
        try:
            url = self._address.of(scope)
            content = json.dumps(self._body.of(scope)).encode() if self._body is not None else None
        except Missing as error:
            raise NoListing(str(error), reason="mapping_missing") from None
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if content else {})
        answer = await self._client.request(
            self._settings.method, url, headers=headers, body=content or b"", timeout_s=TIMEOUT_S
        )
        check(answer)
        try:
            items = self._items.find(json.loads(answer.body))
        except (ValueError, RecursionError):
            raise NoListing(f"{answer}: that is no JSON", reason="listing_not_readable") from None
        except Missing as error:
            raise NoListing(str(error), reason="listing_not_readable") from None
        if not isinstance(items, list):
            where = f"there is no list at `{self._items.text}` ({self._items.setting})"
            raise NoListing(f"{answer}: {where}", reason="listing_not_readable")
        return items

    def _newest(self, items: list[Any]) -> str | None:
        """The greatest value of the cursor; items without one are not looked at."""
        found = []
        for item in items:
            try:
                value = self._cursor.text_in(item)
            except Missing:
                continue
            if value is not None:
                found.append(value)
        return max(found, key=comparable, default=None)


class BucketListing:
    """The objects of a bucket, all of them each time: S3 lists by name, so their content marks say what is new.

    An object's event is what MinIO publishes about it, so that the service fetches and answers both alike.
    """

    def __init__(self, settings: PollSettings, name: str, url: str, client: TargetClient) -> None:
        self._bucket = settings.bucket or ""
        self._prefix = settings.prefix
        self._url = url.rstrip("/")
        self._client = client
        at = f"connect.{name}.poll.accept"
        self._accept = Reading(settings.accept, at) if settings.accept is not None else None

    async def pages(self, cursor: str | None) -> AsyncIterator[Page]:
        """See `Listing`."""
        after = ""
        while True:
            query = f"?list-type=2&max-keys={_S3_PAGE}&prefix={quote(self._prefix, safe='')}&encoding-type=url"
            query += f"&start-after={quote(after, safe='')}" if after else ""
            answer = await self._client.request("GET", self._url + query, timeout_s=TIMEOUT_S)
            check(answer)
            objects, is_last = _objects(answer)
            uploads = [each for each in map(self._upload, objects) if each is not None]
            yield Page(tuple(uploads), len(objects) - len(uploads), (), None)
            if is_last or not objects:
                return
            after = objects[-1]["key"]

    def _upload(self, found: Mapping[str, Any]) -> Upload | None:
        key = str(found["key"])
        if key.endswith("/") or (self._accept is not None and not self._accept.find(found)):
            return None
        record = {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "eventTime": found["last_modified"],
            "eventName": "s3:ObjectCreated:Put",
            "s3": {
                "s3SchemaVersion": "1.0",
                "bucket": {"name": self._bucket},
                "object": {"key": quote(key, safe=""), "size": found["size"], "eTag": found["etag"]},
            },
        }
        body = {"EventName": record["eventName"], "Key": f"{self._bucket}/{key}", "Records": [record]}
        event_id = digest([self._bucket, key, found["etag"]])[:32]
        asset_id = f"{self._bucket}/{key}"
        return Upload(asset_id, event_id, json.dumps(body).encode(), str(found["etag"]), "application/json")


def check(answer: TargetAnswer) -> None:
    """Raise what an answer other than 2xx means for a listing."""
    if 200 <= answer.status < 300:
        return
    if answer.status in (401, 403):
        raise TargetRefused(f"it does not let us in: {answer}", reason="system_refuses")
    if answer.status in (408, 425, 429) or answer.status >= 500:
        after_s = retry_after_s(answer.headers.get("retry-after"))
        raise TargetBusy(str(answer), reason="system_busy", after_s=after_s)
    raise NoListing(str(answer), reason="listing_refused")


def _objects(answer: TargetAnswer) -> tuple[list[dict[str, Any]], bool]:
    """The objects of a page of a bucket, and whether it is the last one."""
    if b"<!DOCTYPE" in answer.body[:1000]:
        raise NoListing(f"{answer}: that is no listing of a bucket", reason="listing_not_readable")
    try:
        root = ElementTree.fromstring(answer.body)  # noqa: S314 - no entities can be declared without a DOCTYPE
    except ElementTree.ParseError:
        raise NoListing(f"{answer}: that is no XML", reason="listing_not_readable") from None
    if not root.tag.endswith("ListBucketResult"):
        raise NoListing(f"{answer}: that is no listing of a bucket", reason="listing_not_readable")
    namespace = root.tag.removesuffix("ListBucketResult")

    def text(of: ElementTree.Element, name: str) -> str:
        return of.findtext(namespace + name) or ""

    is_encoded = text(root, "EncodingType") == "url"
    objects = [
        {
            "key": unquoted(text(each, "Key")) if is_encoded else text(each, "Key"),
            "etag": text(each, "ETag").strip('"'),
            "size": int(text(each, "Size") or 0),
            "last_modified": text(each, "LastModified"),
        }
        for each in root.iter(f"{namespace}Contents")
    ]
    return objects, text(root, "IsTruncated").strip().lower() != "true"


def unquoted(key: str) -> str:
    """A key as `encoding-type=url` writes it: a space may be `+` or `%20`."""
    from urllib.parse import unquote_plus

    return unquote_plus(key)


def _marked(upload: Upload, item: Any) -> Upload:
    return Upload(upload.asset_id, upload.event_id, upload.body, digest(item), upload.content_type)


def comparable(value: str) -> tuple[int, float, str]:
    """A cursor as something to compare: numbers, then times, then other texts."""
    try:
        return 0, float(value), ""
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return 2, 0.0, value
    return 1, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp(), ""


def _earlier(cursor: str, overlap_s: float) -> str:
    """A time some seconds before; a cursor that is no time, as it is."""
    kind, seconds, _ = comparable(cursor)
    if kind != 1:
        return cursor
    moment = datetime.fromtimestamp(seconds, UTC) - timedelta(seconds=overlap_s)
    return _written(moment)


def _moment_now() -> str:
    return _written(datetime.now(UTC))


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

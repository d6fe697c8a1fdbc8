"""Listing of a bucket of an S3 service (ListObjectsV2), page by page."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree

from worker.connect.inlets.listing import TIMEOUT_S, NoListing, Page, check
from worker.connect.inlets.xml_answer import not_readable, xml_of
from worker.connect.mapping import JsonQuery, Missing
from worker.connect.targets.client import TargetAnswer, TargetClient
from worker.connect.uploads import NotAnUpload, Upload, digest
from worker.settings import PollSettings

_PAGE: Final = 1000


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
        self._accept = JsonQuery(settings.accept, at) if settings.accept is not None else None

    async def pages(self, cursor: str | None) -> AsyncGenerator[Page, None]:
        """See `Listing`."""
        after = ""
        while True:
            query = f"?list-type=2&max-keys={_PAGE}&prefix={quote(self._prefix, safe='')}&encoding-type=url"
            query += f"&start-after={quote(after, safe='')}" if after else ""
            answer = await self._client.request("GET", self._url + query, timeout_s=TIMEOUT_S)
            check(answer)
            objects, is_last = _objects(answer)
            yield self._page(objects)
            if is_last:
                return
            last = str(objects[-1]["key"]) if objects else ""
            if last.encode() <= after.encode():  # S3 sorts keys by their bytes
                raise NoListing(
                    f"{answer.request}: the listing of the bucket does not get on after the key {after!r}",
                    reason="listing_stuck",
                )
            after = last

    def _page(self, objects: list[dict[str, Any]]) -> Page:
        uploads, problems, passed_over = [], [], 0
        for each in objects:
            try:
                upload = self._upload(each)
            except Missing as error:
                problems.append(NotAnUpload(str(error)))
            else:
                passed_over += upload is None
                if upload is not None:
                    uploads.append(upload)
        return Page(tuple(uploads), passed_over, tuple(problems), None)

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
        return Upload(
            f"{self._bucket}/{key}", event_id, json.dumps(body).encode(), str(found["etag"]), "application/json"
        )


def _objects(answer: TargetAnswer) -> tuple[list[dict[str, Any]], bool]:
    """The objects of a page of a bucket, and whether it is the last one."""
    root = xml_of(answer, "ListBucketResult")
    try:
        return _contents(root)
    except ValueError as error:
        raise not_readable(answer, str(error)) from None


def _contents(root: ElementTree.Element) -> tuple[list[dict[str, Any]], bool]:
    namespace = root.tag.removesuffix("ListBucketResult")

    def text(of: ElementTree.Element, name: str) -> str:
        return of.findtext(namespace + name) or ""

    is_encoded = text(root, "EncodingType") == "url"
    objects = [
        {
            "key": unquote_plus(text(each, "Key")) if is_encoded else text(each, "Key"),
            "etag": text(each, "ETag").strip('"'),
            "size": int(text(each, "Size") or 0),
            "last_modified": text(each, "LastModified"),
        }
        for each in root.iter(f"{namespace}Contents")
    ]
    return objects, text(root, "IsTruncated").strip().lower() != "true"

"""Tags of ours as one tag of an S3 object: `autotag` = `cat/sofa`. The object's other tags stay as they are.

S3 replaces the whole set of an object's tags, and has no condition for that: what another program writes between our
read and our write is lost, which is why the set is read once more just before it is written.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape

import httpx

from worker.connect.merge import folded
from worker.connect.names import NameRules, joined
from worker.connect.targets.answers import raise_unless_done
from worker.connect.targets.base import AssetGone, Rejected, Standing, TargetAsset, TargetBusy, TargetRefused
from worker.connect.targets.client import TargetAnswer, TargetClient
from worker.errors import CannotBeDone
from worker.messages.s3_notifications import S3Content
from worker.settings import S3Settings, TargetSettings
from worker.sources.s3 import object_url

TAG_KEY: Final = "autotag"
_SEPARATOR: Final = "/"
_MOST_TAGS: Final = 10
_LONGEST_VALUE: Final = 256
_TAKEN: Final = re.compile(r"[\w .:=+@-]")
"""Letters and digits of any script, space and `+-=._:@`; `/` separates our tags."""


class S3Target:
    """The objects of one S3 service."""

    def __init__(self, settings: TargetSettings, service: S3Settings, client: TargetClient) -> None:
        self._settings = settings
        self._service = service
        self._client = client
        self.names = NameRules(only=_TAKEN, longest=_LONGEST_VALUE, unit="utf16")

    @property
    def origin(self) -> str:
        """See `Target`."""
        return self._service.endpoint.rstrip("/")

    async def read(self, asset: TargetAsset) -> Standing:
        """See `Target`."""
        return _standing(await self._tags(asset))

    async def change(
        self, asset: TargetAsset, add: Sequence[str], remove: Sequence[str], standing: Standing
    ) -> tuple[str, ...]:
        """See `Target`."""
        tags = await self._tags(asset)
        value = _value(_standing(tags), add, remove)
        others = {key: each for key, each in tags.items() if key != TAG_KEY}
        if value and len(others) >= _MOST_TAGS:
            raise Rejected(
                f"the object {asset.asset_id} has {_MOST_TAGS} tags of other programs, and S3 takes no more",
                reason="tags_full",
            )
        await self._send("PUT", asset, _written(others | ({TAG_KEY: value} if value else {})))
        stands = {folded(name) for name in value.split(_SEPARATOR)}
        return tuple(name for name in add if folded(name) in stands)

    def planned(self, asset: TargetAsset, add: Sequence[str], remove: Sequence[str], standing: Standing) -> list[str]:
        """See `Target`."""
        return [f"PUT {self._url(asset)} {TAG_KEY}={_value(standing, add, remove)}"]

    async def probe(self) -> None:
        """See `Target`."""
        answer = await self._client.request("GET", self.origin + "/", timeout_s=self._settings.timeout_s)
        if answer.status in (403, 404, 405):  # keys need not have the right to list buckets
            return
        raise_unless_done(answer, self._settings, refuses_html=False)

    async def close(self) -> None:
        """See `Target`."""
        await self._client.close()

    async def _tags(self, asset: TargetAsset) -> dict[str, str]:
        answer = await self._send("GET", asset, b"")
        try:
            return _read(answer.body)
        except ValueError as error:
            raise TargetBusy(f"{answer.request} has an answer that cannot be read: {error}", reason="garbled") from None

    async def _send(self, method: str, asset: TargetAsset, body: bytes) -> TargetAnswer:
        headers = {}
        if body:
            digest = hashlib.md5(body, usedforsecurity=False).digest()  # AWS asks for it
            headers = {"Content-MD5": base64.b64encode(digest).decode(), "Content-Type": "application/xml"}
        url = str(self._url(asset))
        answer = await self._client.request(method, url, headers=headers, body=body, timeout_s=self._settings.timeout_s)
        if b"<Code>NoSuchBucket</Code>" in answer.body:
            raise TargetRefused(f"{answer}: there is no such bucket", reason="bucket_unknown")
        if b"<Code>NoSuchTagSet</Code>" in answer.body:  # of services that have none for an object without tags
            return answer
        raise_unless_done(answer, self._settings)
        return answer

    def _url(self, asset: TargetAsset) -> httpx.URL:
        content = _object_of(asset)
        try:
            url = object_url(content, self._service)
        except CannotBeDone as error:
            raise AssetGone(str(error)) from error
        separator = b"&" if b"?" in url.raw_path else b"?"
        return url.copy_with(raw_path=url.raw_path + separator + b"tagging=")


def _object_of(asset: TargetAsset) -> S3Content:
    """The object as the notification named it, else as an asset id has it: `bucket/key`."""
    s3 = asset.context.get("s3")
    if isinstance(s3, dict) and isinstance(s3.get("bucket"), str) and isinstance(s3.get("key"), str):
        version = s3.get("version_id")
        return S3Content.of(s3["bucket"], s3["key"], version if isinstance(version, str) else None)
    bucket, _, key = asset.asset_id.partition("/")
    if not bucket or not key:
        raise Rejected(f"{asset.asset_id!r} names no object: bucket/key", reason="mapping_missing")
    return S3Content.of(bucket, key)


def _standing(tags: dict[str, str]) -> Standing:
    names = tuple(name for name in tags.get(TAG_KEY, "").split(_SEPARATOR) if name.strip())
    return Standing(names, names)


def _value(standing: Standing, add: Sequence[str], remove: Sequence[str]) -> str:
    """The tag's value: what stands comes first, since it may be a person's."""
    names = [*(name for name in standing.tags if name not in remove), *add]
    return joined(names, _SEPARATOR, _LONGEST_VALUE, "utf16")


def _written(tags: dict[str, str]) -> bytes:
    pairs = "".join(f"<Tag><Key>{escape(key)}</Key><Value>{escape(each)}</Value></Tag>" for key, each in tags.items())
    return f'<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TagSet>{pairs}</TagSet></Tagging>'.encode()


def _read(body: bytes) -> dict[str, str]:
    """The tags in an answer. Raises ValueError for what is not one."""
    if b"<Code>NoSuchTagSet</Code>" in body:
        return {}
    tags: dict[str, str] = {}
    fields: dict[str, str] = {}
    path: list[str] = []

    def on_start(name: str, _attributes: object) -> None:
        path.append(name.rpartition(" ")[2])
        if path[-1] == "Tag":
            fields.clear()

    def on_text(text: str) -> None:
        fields[path[-1]] = fields.get(path[-1], "") + text

    def on_end(_name: str) -> None:
        if path.pop() == "Tag":
            tags[fields.get("Key", "")] = fields.get("Value", "")

    def on_doctype(*_: object) -> None:
        raise ValueError("it declares a document type")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = on_start, on_end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = on_text, on_doctype
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML: {error}") from None
    if b"Tagging" not in body:
        raise ValueError("it has no set of tags")
    return tags

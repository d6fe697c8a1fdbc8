"""A target that is described by requests: how the tags of an asset are read, found, made, added and removed."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from worker.connect.mapping import JsonQuery, Missing, Tree, UrlTemplate, origin
from worker.connect.merge import folded
from worker.connect.names import NameRules
from worker.connect.targets import dav
from worker.connect.targets.answers import raise_unless_done
from worker.connect.targets.base import (
    AssetGone,
    Rejected,
    Standing,
    TagId,
    TargetAsset,
    TargetBusy,
    TargetRefused,
)
from worker.connect.targets.client import TargetAnswer, TargetClient
from worker.errors import Misconfigured
from worker.settings import ConnectionSettings, RequestSettings, TargetSettings
from worker.settings.connect import ReadSettings

_MAXIMUM_IDS: Final = 20_000
_PARENT_SEPARATOR: Final = "/"


class RequestTarget:
    """The target of one connection. Raises Misconfigured for settings that cannot be compiled."""

    def __init__(self, name: str, connection: ConnectionSettings, client: TargetClient) -> None:
        settings = connection.target
        base, place = connection.url or "", f"connect.{name}.target"
        self._client = client
        self._settings = settings
        self._read = _Call(settings.read, base, f"{place}.read")
        self._find = _Call(settings.find, base, f"{place}.find")
        self._create = _Call(settings.create, base, f"{place}.create")
        self._add = _Call(settings.add, base, f"{place}.add")
        self._remove = _Call(settings.remove, base, f"{place}.remove")
        self._probe = _Call(settings.probe, base, f"{place}.probe")
        self._created_id = JsonQuery(settings.create.id, f"{place}.create.id") if settings.create.id else None
        self._ids: OrderedDict[str, TagId] = OrderedDict()
        self._names_by_id: OrderedDict[TagId, str] = OrderedDict()
        self._finding = asyncio.Lock()
        self._prefix = settings.parent + _PARENT_SEPARATOR if settings.parent else ""
        self._base = base
        self.names = _names(settings, self._prefix)

    @property
    def origin(self) -> str:
        """See `Target`."""
        return origin(self._base)

    async def read(self, asset: TargetAsset) -> Standing:
        """See `Target`."""
        answer = await self._send(self._read, _scope(asset))
        tags = await self._named(self._read.tags_in(answer))
        names = tuple(name for name, _ in tags)
        ids = {name: its_id for name, its_id in tags if its_id is not None}
        mine = None
        if self._prefix:
            mine = tuple(name for name in names if folded(name).startswith(folded(self._prefix)))
        return Standing(names, mine, ids)

    async def change(
        self, asset: TargetAsset, add: Sequence[str], remove: Sequence[str], standing: Standing
    ) -> tuple[str, ...]:
        """See `Target`."""
        try:
            await self._change(asset, add, remove, standing)
        except (Rejected, AssetGone):
            # The asset was there just before: a tag may be gone whose id is remembered.
            if not self._forget((*add, *remove)):
                raise
            await self._change(asset, add, remove, standing)
        return tuple(add)

    async def _change(self, asset: TargetAsset, add: Sequence[str], remove: Sequence[str], standing: Standing) -> None:
        ids: dict[str, TagId] = {}
        if self._has_ids:
            for name in add:
                ids[name] = await self._id_of(name)
            for name in remove:
                ids[name] = standing.ids[name] if name in standing.ids else await self._id_of(name)
        rejected: Rejected | None = None
        for call, scope in self._calls(asset, add, remove, standing, ids):
            try:
                await self._send(call, scope)
            except Rejected as error:  # the other tags are written all the same
                rejected = rejected or error
        if rejected is not None:
            raise rejected

    def planned(self, asset: TargetAsset, add: Sequence[str], remove: Sequence[str], standing: Standing) -> list[str]:
        """See `Target`."""
        known = {**{name: self._ids[folded(name)] for name in add if folded(name) in self._ids}, **standing.ids}
        ids = {name: known.get(name, f"<id of {name}>") for name in (*add, *remove)} if self._has_ids else {}
        unknown = [name for name in add if name not in known] if self._create.is_there else []
        lines = [f"if there is no tag {name}: {self._create.shown(_scope(asset) | {'tag': name})}" for name in unknown]
        return [*lines, *(call.shown(scope) for call, scope in self._calls(asset, add, remove, standing, ids))]

    def _calls(
        self,
        asset: TargetAsset,
        add: Sequence[str],
        remove: Sequence[str],
        standing: Standing,
        ids: Mapping[str, TagId],
    ) -> list[tuple[_Call, dict[str, Any]]]:
        """What is sent. Removals come first, for systems that take so many tags and no more."""
        scope = _scope(asset)
        stays = [*(name for name in standing.tags if name not in remove), *add]
        all_ids = {**standing.ids, **ids}
        scope["all_tags"] = stays
        scope["all_tag_ids"] = [all_ids[name] for name in stays if name in all_ids]
        if not self._remove.is_there:  # a system that replaces
            return [(self._add, scope | {"tags": list(add), "tag_ids": [ids[name] for name in add if name in ids]})]
        calls = []
        for call, names, each in (
            (self._remove, remove, self._settings.remove.each),
            (self._add, add, self._settings.add.each),
        ):
            if each == "tag":
                calls += [(call, scope | {"tag": name, **_its_id(ids, name)}) for name in names]
            elif names:
                calls.append(
                    (call, scope | {"tags": list(names), "tag_ids": [ids[name] for name in names if name in ids]})
                )
        return calls

    async def probe(self) -> None:
        """See `Target`."""
        if self._probe.is_there:
            try:
                await self._send(self._probe, {})
            except (AssetGone, Rejected, Missing) as error:
                raise TargetRefused(f"the probe cannot be made: {error}", reason="probe_rejected") from error
            return
        answer = await self._client.request("GET", self._base or "", timeout_s=self._settings.timeout_s)
        raise_unless_done(answer, self._settings, done_on=range(300, 500), refuses_html=False)

    async def close(self) -> None:
        """See `Target`."""
        await self._client.close()

    # Ids of tags

    @property
    def _has_ids(self) -> bool:
        return self._find.is_there or self._create.is_there

    async def _id_of(self, name: str) -> TagId:
        """The system's id of a tag, which is made where there is none."""
        fold = folded(name)
        if fold in self._ids:
            self._ids.move_to_end(fold)
            return self._ids[fold]
        async with self._finding:  # one at a time: two would make a tag twice
            if fold in self._ids or await self._look_for(name):
                return self._ids[fold]
            if not self._create.is_there:
                raise Rejected(f"the system has no tag {name!r}, and there is no `create`", reason="tag_unknown")
            answer = await self._send(self._create, {"tag": name})
            document = {"body": _json_or_none(answer.body), "headers": dict(answer.headers)}
            made = self._created_id.find(document) if self._created_id is not None else None
            if made is not None and _is_id(made):
                self._remember(name, made)
            elif not await self._look_for(name):
                raise Rejected(f"the tag {name!r} was made, and is not found: {answer}", reason="tag_unknown")
            return self._ids[fold]

    async def _look_for(self, name: str) -> bool:
        if not self._find.is_there:
            return False
        answer = await self._send(self._find, {"tag": name})
        for found, its_id in self._find.tags_in(answer):
            if its_id is not None and found is not None:
                self._remember(found, its_id)
        return folded(name) in self._ids

    async def _named(self, tags: list[tuple[str | None, TagId | None]]) -> list[tuple[str, TagId | None]]:
        """Tags with their names, where an asset lists ids alone. One that nobody knows is left out: it is not ours."""
        unnamed = {its_id for name, its_id in tags if name is None}
        if unnamed - self._names_by_id.keys() and self._find.is_there:
            await self._look_for("")
        found = ((name or self._names_by_id.get(its_id or ""), its_id) for name, its_id in tags)
        return [(name, its_id) for name, its_id in found if name is not None]

    def _remember(self, name: str, its_id: TagId) -> None:
        self._ids[folded(name)] = its_id
        self._names_by_id[its_id] = name
        if len(self._ids) > _MAXIMUM_IDS:
            self._ids.popitem(last=False)
        if len(self._names_by_id) > _MAXIMUM_IDS:
            self._names_by_id.popitem(last=False)

    def _forget(self, names: Sequence[str]) -> bool:
        """Forget the ids of tags; returns whether any was remembered."""
        return bool([name for name in names if self._ids.pop(folded(name), None) is not None])

    async def _send(self, call: _Call, scope: Mapping[str, Any]) -> TargetAnswer:
        try:
            url, headers, body = call.request(scope)
        except Missing as error:
            raise Rejected(str(error), reason=error.reason) from error
        timeout_s = self._settings.timeout_s
        answer = await self._client.request(call.method, url, headers=headers, body=body, timeout_s=timeout_s)
        raise_unless_done(answer, self._settings, done_on=call.done_on)
        call.raise_if_refused(answer)
        return answer


class _Call:
    """One kind of request, compiled."""

    def __init__(self, settings: RequestSettings, base: str, place: str) -> None:
        self.is_there = settings.path is not None
        self.method = settings.method
        self.done_on = settings.done_on
        self._place = place
        self._headers = dict(settings.headers)
        self._form = settings.form
        self._is_dav = isinstance(settings, ReadSettings) and settings.format == "dav"
        self._tags = JsonQuery(settings.tags, f"{place}.tags") if isinstance(settings, ReadSettings) else None
        self._done_if = JsonQuery(settings.done_if, f"{place}.done_if") if settings.done_if is not None else None
        try:
            self._address = UrlTemplate(settings.path or "", base, f"{place}.path")
            self._body = Tree(settings.body, f"{place}.body") if settings.body is not None else None
        except Exception as error:
            raise Misconfigured(f"`{place}` cannot be used: {error}") from error

    def request(self, scope: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes]:
        """Address, headers and body. Raises Missing."""
        headers = {"Accept": "application/json"} | self._headers
        if self._is_dav:
            return (
                self._address.of(scope),
                {"Depth": "1", "Content-Type": "application/xml"} | self._headers,
                dav.REQUEST,
            )
        if self._body is None:
            return self._address.of(scope), headers, b""
        tree = self._body.of(scope)
        if self._form:
            kind, body = "application/x-www-form-urlencoded", urlencode(tree, doseq=True).encode()
        else:
            kind, body = "application/json", json.dumps(tree, ensure_ascii=False).encode(errors="replace")
        return self._address.of(scope), {"Content-Type": kind} | headers, body

    def raise_if_refused(self, answer: TargetAnswer) -> None:
        """Raise Rejected for a system that says with 200 that it has not done it."""
        if self._done_if is not None and self._done_if.find(_json_or_none(answer.body)) is not True:
            raise Rejected(f"{answer}, which is no success (`{self._place}.done_if`)", reason="not_done")

    def shown(self, scope: Mapping[str, Any]) -> str:
        """The request in a line, for people."""
        try:
            url, _, body = self.request(scope)
        except Missing as error:
            return f"{self.method}: {error}"
        return f"{self.method} {url} {body.decode()}".rstrip()

    def tags_in(self, answer: TargetAnswer) -> list[tuple[str | None, TagId | None]]:
        """Names and ids in an answer; a number alone is an id. Raises TargetBusy for one that makes no sense."""
        assert self._tags is not None  # noqa: S101 - only asked of calls that read
        try:
            document = dav.tags_in(answer.body) if self._is_dav else json.loads(answer.body)
            found = self._tags.find(document)
        except (ValueError, RecursionError, Missing) as error:
            raise TargetBusy(f"{answer.request} has an answer that cannot be read: {error}", reason="garbled") from None
        if not isinstance(found, list):
            raise TargetBusy(
                f"{answer.request} has an answer without the list of tags `{self._tags.text}` ({self._place}.tags): "
                f"{answer.quoted}",
                reason="garbled",
            )
        return [tag for each in found if (tag := _tag(each)) is not None]


def _names(settings: TargetSettings, prefix: str) -> NameRules:
    units: dict[str, Any] = {"utf8": "bytes"}
    return NameRules(
        prefix=prefix,
        forbidden=frozenset(settings.forbidden) | (frozenset(_PARENT_SEPARATOR) if prefix else frozenset()),
        longest=settings.longest_name or None,
        unit=units.get(settings.longest_name_in, settings.longest_name_in),
    )


def _scope(asset: TargetAsset) -> dict[str, Any]:
    return {**asset.context, "asset_id": asset.asset_id}


def _its_id(ids: Mapping[str, TagId], name: str) -> dict[str, TagId]:
    return {"tag_id": ids[name]} if name in ids else {}


def _tag(found: Any) -> tuple[str | None, TagId | None] | None:
    if isinstance(found, dict):
        name, its_id = found.get("name"), found.get("id")
        name, its_id = name if isinstance(name, str) and name else None, its_id if _is_id(its_id) else None
        return (name, its_id) if name is not None or its_id is not None else None
    if isinstance(found, int) and _is_id(found):
        return None, found
    return (found, None) if isinstance(found, str) and found else None


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None

"""Listings of systems, page by page: of any REST API by the settings.

A keyset listing: each page begins at the newest value of the page before, never at a page number, which would skip
items when others come or go. Page numbers are used where keys don't help: for items that share one value, and for
systems that can't begin anywhere. A listing is at its end when a page is empty or shows nothing further; a short page
is no sign of it, as systems have limits of their own and leave out what we may not see.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from worker.connect.mapping import JsonQuery, Missing, Tree, UrlTemplate
from worker.connect.targets.base import TargetBusy, TargetRefused
from worker.connect.targets.client import TargetAnswer, TargetClient
from worker.connect.uploads import NotAnUpload, Upload, UploadMapping, digest
from worker.errors import AutotagError
from worker.settings import PollSettings
from worker.settings.cursors import NOW, Cursor, moment_text
from worker.sources.retry_after import retry_after_s

TIMEOUT_S: Final = 60.0
MAXIMUM_PAGES: Final = 1_000_000


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
    """One kind of listing. Pages raise NoListing, TargetBusy, TargetRefused or ResourceExhausted."""

    def pages(self, cursor: str | None) -> AsyncGenerator[Page, None]:
        """All pages from a cursor on; None for the first listing ever."""
        ...


class RequestListing:
    """By the requests in the settings."""

    def __init__(
        self, name: str, url: str, settings: PollSettings, mapping: UploadMapping, client: TargetClient
    ) -> None:
        at = f"connect.{name}.poll"
        self._name = name
        self._settings = settings
        self._mapping = mapping
        self._client = client
        self._address = UrlTemplate(settings.path or "", url, f"{at}.path")
        self._body = Tree(settings.body, f"{at}.body") if settings.body else None
        self._items = JsonQuery(settings.items, f"{at}.items")
        self._cursor = JsonQuery(settings.cursor, f"{at}.cursor") if settings.cursor is not None else None
        self._begins_anywhere = settings.cursor is not None and settings.asks_for("cursor")
        self._begin = moment_text(time.time()) if settings.begin == NOW else settings.begin

    async def pages(self, cursor: str | None) -> AsyncGenerator[Page, None]:
        """See `Listing`."""
        if cursor is None and self._cursor is not None:
            yield Page((), 0, (), self._begin)  # kept at once: what comes while we are stopped is new
        position = self._begin if cursor is None else self._earlier(cursor)
        async for page in self._keyset(position) if self._begins_anywhere else self._all_pages(position):
            yield page

    async def _keyset(self, position: str) -> AsyncGenerator[Page, None]:
        number, before, by_keys = 1, "", True
        for _ in range(MAXIMUM_PAGES):
            items = await self._fetch(position, number)
            this = digest(items)
            if not items or (this == before and number > 1):
                self._require_end(items)
                return
            newest = self._newest(items, position)
            if this == before:
                by_keys = False  # the newest value has brought nothing further: now by page numbers
            else:
                yield self._page(items, None if newest is None else _not_ahead(newest))
            before = this
            if by_keys and newest is not None and Cursor.of(newest) > Cursor.of(position):
                position, number = newest, 1
            elif self._settings.asks_for("page"):
                number += 1
            else:
                self._require_end(items)
                return
        raise _endless()

    async def _all_pages(self, position: str) -> AsyncGenerator[Page, None]:
        """Of a system that can't begin anywhere: what is older is passed over here; sorted in any way, or in none."""
        before, newest = "", position
        for number in range(1, MAXIMUM_PAGES):
            items = await self._fetch(position, number)
            this = digest(items)
            if not items or this == before:
                self._require_end(items)
                break
            if self._cursor is not None:
                values = [newest, *(each for item in items if (each := self._text_of(item)) and _cursor(each))]
                newest = max(values, key=Cursor.of)
                items = [item for item in items if not self._is_before(item, position)]
            yield self._page(items, None)
            before = this
            if not self._settings.asks_for("page"):
                if self._settings.asks_for("page_size"):
                    self._require_end(items)
                break
        else:
            raise _endless()
        if self._cursor is not None:
            yield Page((), 0, (), _not_ahead(newest))

    def _is_before(self, item: Any, position: str) -> bool:
        found, begin = _cursor(self._text_of(item) or ""), Cursor.of(position)
        return found is not None and found.is_time is begin.is_time and found < begin

    def _require_end(self, items: list[Any]) -> None:
        """Raise for a full page after which we can't get on: what comes after it would never be seen."""
        if len(items) >= self._settings.page_size:
            raise NoListing(
                f"`connect.{self._name}.poll`: a whole page of {len(items)} items comes again and again; the request "
                "needs {page} for items that share one value of `cursor`, and the system has to heed it",
                reason="listing_stuck",
            )

    def _page(self, items: list[Any], cursor: str | None) -> Page:
        uploads, problems, passed_over = [], [], 0
        for item in items:
            try:
                upload = self._mapping.upload(item)
            except NotAnUpload as error:
                problems.append(error)
            else:
                passed_over += upload is None
                if upload is not None:
                    uploads.append(upload if upload.mark is not None else replace(upload, mark=digest(item)))
        return Page(tuple(uploads), passed_over, tuple(problems), cursor)

    async def _fetch(self, position: str, number: int) -> list[Any]:
        scope = {"cursor": position, "page": number, "page_size": self._settings.page_size}
        try:
            url = self._address.of(scope)
            content = json.dumps(self._body.of(scope)).encode() if self._body is not None else b""
        except Missing as error:
            raise NoListing(str(error), reason="mapping_missing") from None
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if content else {})
        answer = await self._client.request(
            self._settings.method, url, headers=headers, body=content, timeout_s=TIMEOUT_S
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

    def _newest(self, items: list[Any], position: str) -> str | None:
        """The greatest value of the cursor. Items without one, as those that can't be read, are not looked at.

        Raises NoListing where no item has one that can be compared, or where they are not sorted upwards.
        """
        kind = Cursor.of(position).is_time
        found = [(value, text) for item in items if (text := self._text_of(item)) and (value := _cursor(text))]
        of_kind = [each for each in found if each[0].is_time is kind]
        at = f"connect.{self._name}.poll.cursor"
        if found and not of_kind:
            raise NoListing(
                f"`{at}` of the items is {found[0][1]!r}, but the listing began at {position!r}: set `begin` to a "
                f"value of the same kind, and go there once by `autotag connect rewind {self._name} --to VALUE`",
                reason="cursor_not_readable",
            )
        if not found and any(map(self._can_be_read, items)):
            raise NoListing(f"`{at}`: no item has a time or a number there", reason="cursor_not_readable")
        if of_kind and of_kind[0][0] > of_kind[-1][0]:
            raise NoListing(
                f"`{at}`: the items are not sorted by it upwards ({of_kind[0][1]} comes before {of_kind[-1][1]}): "
                "let the request sort them",
                reason="listing_not_sorted",
            )
        return max(of_kind, key=lambda each: each[0])[1] if of_kind else None

    def _text_of(self, item: Any) -> str | None:
        assert self._cursor is not None  # noqa: S101 - only asked where it is set
        try:
            value = self._cursor.find(item)
        except Missing:
            return None
        return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None

    def _can_be_read(self, item: Any) -> bool:
        try:
            self._mapping.upload(item)
        except NotAnUpload:
            return False
        return True

    def _earlier(self, cursor: str) -> str:
        """A time some seconds before; a number as it is."""
        found = _cursor(cursor)
        if found is None:
            return self._begin
        return moment_text(found.value - self._settings.overlap_s) if found.is_time else cursor


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


def _endless() -> NoListing:
    return NoListing(f"the listing has not ended after {MAXIMUM_PAGES:,} pages", reason="listing_endless")


def _cursor(text: str) -> Cursor | None:
    try:
        return Cursor.of(text)
    except ValueError:
        return None


def _not_ahead(newest: str) -> str:
    """A cursor to keep: never a time to come, after which nothing of today would be listed."""
    found, now_s = Cursor.of(newest), time.time()
    return moment_text(now_s) if found.is_time and found.value > now_s else newest

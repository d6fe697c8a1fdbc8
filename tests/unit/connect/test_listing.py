"""Listings: whatever limits and habits a system has, each of its items is seen, or the reason is named."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.connect.inlets.bucket import BucketListing
from worker.connect.inlets.listing import Listing, NoListing, Page, RequestListing
from worker.connect.targets.client import TargetAnswer
from worker.connect.uploads import UploadMapping
from worker.settings import ConnectionSettings
from worker.settings.cursors import Cursor

FROM_KEYS = "/list?since={cursor}&size={page_size}&page={page}"
BEGIN = "2026-01-01T00:00:00Z"


class System:
    """Answers requests of a listing out of its items, as a client of the system sees it."""

    def __init__(self, answer: Callable[[dict[str, str]], bytes]) -> None:
        self._answer = answer
        self.asked: list[dict[str, str]] = []

    async def request(self, method: str, url: str, **_: Any) -> TargetAnswer:
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.asked.append(query)
        assert len(self.asked) < 2000, "the listing does not end"
        return TargetAnswer(200, {}, self._answer(query), f"{method} /list", "")


def minute(number: int) -> str:
    return f"2026-01-{1 + number // 1440:02}T{number // 60 % 24:02}:{number % 60:02}:00Z"


def listing(system: System, **changes: Any) -> RequestListing:
    values = {"path": FROM_KEYS, "cursor": "at", "page_size": 5, "begin": BEGIN, "mark": "id", **changes}
    values |= {"enabled": True, "asset_id": "id", "content_url": "/images/{asset_id}"}
    connection = ConnectionSettings.model_validate({"url": "https://dms.example", "poll": values})
    mapping = UploadMapping("dms", connection, connection.poll, "poll")
    return RequestListing("dms", "https://dms.example", connection.poll, mapping, system)  # type: ignore[arg-type]


def all_pages(listed: Listing, cursor: str | None = BEGIN) -> list[Page]:
    async def gather() -> list[Page]:
        return [page async for page in listed.pages(cursor)]

    return asyncio.run(gather())


def ids(pages: list[Page]) -> set[str]:
    return {upload.asset_id for page in pages for upload in page.uploads}


def answering(items: list[dict[str, Any]], cap: int = 1000, ignored: frozenset[str] = frozenset()) -> System:
    """A system of these items that gives at most `cap` on a page, and does not heed some of the parameters."""

    def answer(query: dict[str, str]) -> bytes:
        heeded = {name: value for name, value in query.items() if name not in ignored}
        found = [item for item in items if item["at"] >= heeded.get("since", "")]
        size, page = min(cap, int(heeded.get("size", "7"))), int(heeded.get("page", "1"))
        return json.dumps(found[(page - 1) * size : page * size]).encode()

    return System(answer)


@given(
    st.lists(st.integers(0, 40), max_size=40),
    st.integers(1, 12),
    st.integers(1, 9),
    st.frozensets(st.sampled_from(["since", "size", "page"]), max_size=3),
    st.sampled_from([FROM_KEYS, "/list?since={cursor}&size={page_size}", "/list?page={page}&size={page_size}"]),
)
def test_every_item_is_seen_or_it_is_said_that_the_listing_is_stuck(
    minutes: list[int], cap: int, page_size: int, ignored: frozenset[str], path: str
) -> None:
    items = [{"id": f"a{number}", "at": minute(when)} for number, when in enumerate(sorted(minutes))]
    # A page that is short although more follows looks like the last one without page numbers
    names_page = "{page}" in path and "page" not in ignored
    page_size = page_size if names_page else min(page_size, cap, 7)
    system = answering(items, cap, ignored)
    try:
        pages = all_pages(listing(system, path=path, page_size=page_size, overlap_s=0))
    except NoListing as error:
        assert error.reason == "listing_stuck"  # noqa: PT017
        assert not names_page
    else:
        assert ids(pages) == {item["id"] for item in items}


def test_a_first_listing_begins_now_and_keeps_that_at_once() -> None:
    system = answering([{"id": "old", "at": minute(0)}])
    first, *others = all_pages(listing(system, begin="now"), cursor=None)
    assert first.cursor is not None
    assert abs(Cursor.of(first.cursor).value - time.time()) < 60
    assert others == []


def test_the_next_one_begins_some_time_before_the_newest_item() -> None:
    system = answering([])
    all_pages(listing(system, overlap_s=300), cursor="2026-01-01T10:00:00.750+02:00")
    assert system.asked[0]["since"] == "2026-01-01T07:55:00Z"


def test_an_item_of_the_future_does_not_hide_those_of_tomorrow() -> None:
    pages = all_pages(listing(answering([{"id": "a", "at": minute(1)}, {"id": "b", "at": "9999-12-31T00:00:00Z"}])))
    assert ids(pages) == {"a", "b"}
    assert all(Cursor.of(page.cursor).value <= time.time() for page in pages if page.cursor is not None)


def test_ids_of_64_bits_are_told_apart() -> None:
    first = (1 << 62) + 1
    items = [{"id": str(first + number), "at": str(first + number)} for number in range(20)]
    pages = all_pages(listing(answering(items), begin="0"), cursor="0")
    assert len(ids(pages)) == 20
    assert pages[-1].cursor == str(first + 19)


def test_a_system_that_can_begin_nowhere_is_listed_as_a_whole_and_what_is_older_passed_over() -> None:
    items = [{"id": f"a{number}", "at": minute(number)} for number in range(30)]
    for order in (items, items[::-1]):
        system = answering(order)
        pages = all_pages(listing(system, path="/list?page={page}&size={page_size}", overlap_s=0), cursor=minute(20))
        assert ids(pages) == {f"a{number}" for number in range(20, 30)}
        assert [page.cursor for page in pages if page.cursor] == [minute(29)]  # when all of it was seen
        assert len(system.asked) == 7


def test_all_of_it_may_come_on_one_page_without_a_cursor() -> None:
    system = System(lambda _: json.dumps([{"id": f"a{number}"} for number in range(500)]).encode())
    assert len(ids(all_pages(listing(system, path="/all", cursor=None)))) == 500
    assert len(system.asked) == 1


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"id": "a", "at": minute(2)}, {"id": "b", "at": minute(1)}], "listing_not_sorted"),
        ([{"id": "a", "at": 7}, {"id": "b", "at": 8}], "cursor_not_readable"),
        ([{"id": "a", "at": "NaN"}], "cursor_not_readable"),
        ([{"id": "a", "at": "1e999"}], "cursor_not_readable"),
        ([{"id": "a", "at": "yesterday"}], "cursor_not_readable"),
        ([{"id": "a"}, {"id": "b"}, {"at": None}], "cursor_not_readable"),
        ([{"id": "a", "at": {"at": minute(1)}}], "cursor_not_readable"),
    ],
)
def test_a_cursor_that_can_never_work_is_said_and_nothing_is_missed_in_silence(items: list[Any], reason: str) -> None:
    with pytest.raises(NoListing) as refused:
        all_pages(listing(System(lambda _: json.dumps(items).encode())))
    assert refused.value.reason == reason
    assert "connect.dms.poll.cursor" in str(refused.value)


def test_one_item_of_garbage_neither_ends_a_listing_nor_moves_its_cursor() -> None:
    garbage: list[Any] = [None, 7, "x", [], {}, {"id": "b", "at": "zzz"}, {"id": [], "at": "9e999"}]
    items = [*garbage, {"id": "a", "at": minute(1)}, *garbage]
    pages = all_pages(listing(System(lambda query: json.dumps(items if query["page"] == "1" else []).encode())))
    assert ids(pages) == {"a", "b"}
    assert {page.cursor for page in pages} == {minute(1)}
    assert len(pages[0].problems) == 12


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_answer_raises_anything_else(said: Any) -> None:
    try:
        all_pages(listing(System(lambda _: json.dumps(said).encode())))
    except NoListing as error:
        assert error.reason in {"listing_not_readable", "listing_stuck", "cursor_not_readable"}  # noqa: PT017


# Buckets


def bucket(answer: Callable[[dict[str, str]], bytes], **changes: Any) -> BucketListing:
    values = {"enabled": True, "kind": "s3", "bucket": "pictures", **changes}
    settings = ConnectionSettings.model_validate({"s3": "store", "poll": values}).poll
    return BucketListing(settings, "dms", "https://s3.example/pictures", System(answer))  # type: ignore[arg-type]


def contents(keys: list[str], *, more: bool, size: str = "7", head: str = "") -> bytes:
    objects = "".join(
        f'<Contents><Key>{key}</Key><LastModified>{BEGIN}</LastModified><ETag>"e"</ETag><Size>{size}</Size></Contents>'
        for key in keys
    )
    inside = f"<IsTruncated>{str(more).lower()}</IsTruncated><EncodingType>url</EncodingType>{objects}"
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0"?>{head}<ListBucketResult xmlns="{namespace}">{inside}</ListBucketResult>'.encode()


def test_a_bucket_is_listed_to_its_end_and_folders_are_passed_over() -> None:
    def answer(query: dict[str, str]) -> bytes:
        return contents(["c%20d", "e%2Bf"], more=False) if "start-after" in query else contents(["a/", "b"], more=True)

    pages = all_pages(bucket(answer), None)
    assert ids(pages) == {"pictures/b", "pictures/c d", "pictures/e+f"}
    assert sum(page.passed_over for page in pages) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (contents(["a", "b"], more=True), "listing_stuck"),  # once more and once more
        (contents([], more=True), "listing_stuck"),
        (contents([""], more=True), "listing_stuck"),
        (contents(["a"], more=False, size="many"), "listing_not_readable"),
        (b"<html><body>Please sign in</body></html>", "listing_not_readable"),
        (b"<html><body>Please sign in", "listing_not_readable"),
        (b"", "listing_not_readable"),
        (b"{}", "listing_not_readable"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', "listing_not_readable"),
        (contents(["a"], more=False, head='<!DOCTYPE x [<!ENTITY a "aaaa">]>'), "listing_not_readable"),
        (contents(["a"], more=False, head=f"<!--{'x' * 2000}--><!DOCTYPE x>"), "listing_not_readable"),
        (contents(["a"], more=False, head="<!DOCTYPE x>").decode().encode("utf-16"), "listing_not_readable"),
    ],
)
def test_what_is_no_listing_of_a_bucket_is_named(answer: bytes, reason: str) -> None:
    with pytest.raises(NoListing) as refused:
        all_pages(bucket(lambda _: answer), None)
    assert refused.value.reason == reason


def test_an_object_that_the_condition_cannot_be_read_of_is_a_problem_of_that_object() -> None:
    (page,) = all_pages(bucket(lambda _: contents(["a", "b"], more=False), accept="starts_with(size, 'x')"), None)
    assert len(page.problems) == 2
    assert "connect.dms.poll.accept" in str(page.problems[0])

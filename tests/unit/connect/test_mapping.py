"""Mapping: what is missing is refused by name, nothing leads elsewhere, and no input raises anything else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.connect.mapping import JsonQuery, Missing, Tree, UrlTemplate

texts = st.text(min_size=1).filter(lambda text: text not in (".", "..") and text.isprintable())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(texts)
def test_a_value_in_an_address_is_one_segment_of_its_path_whatever_it_is(value: str) -> None:
    url = UrlTemplate("/api/assets/{asset_id}/original", "https://dms.example/base", "setting").of({"asset_id": value})
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("https", "dms.example", "", "")
    assert parts.path.startswith("/base/api/assets/")
    assert parts.path.endswith("/original")
    assert unquote(parts.path.split("/")[4]) == value
    assert parts.path.count("/") == 5


@given(st.lists(texts, min_size=1, max_size=5))
def test_a_list_in_an_address_is_as_many_segments(values: list[str]) -> None:
    url = UrlTemplate("/files{/path*}", "https://dms.example", "setting").of({"path": values})
    assert [unquote(each) for each in urlsplit(url).path.split("/")[2:]] == values


@pytest.mark.parametrize("value", [".", "..", "", None, True, {}, ["a", ".."], ["a", None]])
def test_what_would_lead_elsewhere_or_is_nothing_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(Missing, match=r"content_url: .*\{asset_id\}"):
        UrlTemplate("/api/{asset_id}", "https://dms.example", "connect.photos.inlet.content_url").of(
            {"asset_id": value}
        )


def test_an_address_with_a_host_of_its_own_is_not_put_below_the_base() -> None:
    assert (
        UrlTemplate("https://cdn.example/{id}", "https://dms.example", "setting").of({"id": 7})
        == "https://cdn.example/7"
    )


@given(json_values)
def test_reading_raises_nothing_but_that_something_is_missing(document: Any) -> None:
    for text in ("a.b[0]", "ends_with(a, 'x')", "split('/', a)", "to_number(a.b)", "a[?b > `1`].c | [0]", "@"):
        reading = JsonQuery(text, "connect.photos.inlet.asset_id")
        for read in (reading.find, reading.text_in, reading.needed_text_in, reading.moment_in):
            with suppress(Missing):
                read(document)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-27T10:00:00Z", "2026-11-27T10:00:00+00:00"),
        ("2026-11-27T10:00:00", "2026-11-27T10:00:00+00:00"),
        (1_700_000_000, "2023-11-14T22:13:20+00:00"),
        ("yesterday", None),
        (True, None),
        (10**20, None),
        (None, None),
    ],
)
def test_a_time_is_a_text_or_seconds(value: Any, moment: str | None) -> None:
    assert JsonQuery("at", "setting").moment_in({"at": value}) == moment


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (437, "437"), (2**63, str(2**63)), (" ", None), (None, None)])
def test_an_id_is_a_text_or_a_whole_number(value: Any, text: str | None) -> None:
    assert JsonQuery("id", "setting").text_in({"id": value}) == text


@pytest.mark.parametrize("value", [1.5, True, [], {}, ["a"]])
def test_an_id_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(Missing, match="not a text"):
        JsonQuery("id", "setting").text_in({"id": value})


def test_a_tree_keeps_kinds_and_names_the_place_of_what_is_missing() -> None:
    tree = Tree({"documents": ["=asset_id"], "n": "=to_number(asset_id)", "as": "==is", "b": 7}, "add.body")
    assert tree.of({"asset_id": "12"}) == {"documents": ["12"], "n": 12, "as": "=is", "b": 7}
    with pytest.raises(Missing, match=r"add\.body\.documents\[0\]: there is nothing at `asset_id`"):
        tree.of({})

"""Text of others is shown as it is where it can be printed, and as escapes where it cannot; JSON keeps its value."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.operations.printable import is_printable, printable, printable_json, printable_lines

SHARP = (
    "\x00\x07\x08\t\n\r\x1b\x7f\x85\x9b\xad\u061c\u200b\u200c\u200d\u200e\u2028"
    "\u202e\u2066\u3164\ufe0f\ufeff\U000e0041aé "
)
"""Characters that `printable` treats in all its ways, so that hypothesis puts them side by side."""

texts = st.text() | st.text(st.sampled_from(SHARP)) | st.text(st.characters(categories=("Cc", "Cf", "Cn", "Cs", "Zl")))
readable = st.text(st.characters(exclude_categories=("C", "Z", "M"), exclude_characters="\u115f\u1160\u3164\uffa0"))


def unseen(text: str) -> list[str]:
    """The characters that are not for people, by their definition in Unicode rather than by the code under test."""
    kept = "\u200c\u200d"
    return [
        each
        for each in text
        if unicodedata.category(each) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp") and each not in kept
    ]


@given(texts)
def test_nothing_is_left_that_cannot_be_seen(text: str) -> None:
    assert unseen(printable(text)) == []


@given(readable)
def test_what_can_be_printed_stays(text: str) -> None:
    assert printable(text) == text


@given(texts)
def test_it_changes_nothing_twice(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@given(texts, st.integers(1, 20))
def test_it_keeps_to_the_maximum_and_marks_a_cut(text: str, maximum: int) -> None:
    whole, cut = printable(text), printable(text, maximum=maximum)
    assert cut == (whole if len(whole) <= maximum else whole[: maximum - 1] + "…")


@given(texts)
def test_whatever_is_said_to_be_printable_is_left_as_it_is(text: str) -> None:
    if is_printable(text):
        assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("a\u2066b\u2069\u200e\u200f\u061c", r"a\u2066b\u2069\u200e\u200f\u061c"),
        ("one\ntwo\r\nthree\rfour\tfive", r"one␤two␤three\x0dfour  five"),
        ("a\u2028b\u2029c\x85", r"a\u2028b\u2029c\x85"),
        ("pay\u200dpal \u200bin\xadvisible\ufeff", r"pay\u200dpal \u200bin\xadvisible\ufeff"),
        ("\U000e0041\U000e0042", r"\U000e0041\U000e0042"),
        ("hidden\ufe00\ufe01\U000e0100", "hidden\ufe00\\ufe01\\U000e0100"),
        ("filler\u3164", r"filler\u3164"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("\u0378\U0010ffff", r"\u0378\U0010ffff"),
    ],
)
def test_what_misleads_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Straßenbahn, Köln",
        "東京タワー\u3000写真",
        "תל אביב",
        "می\u200cخواهم",  # noqa: RUF001 - Persian, where ZWNJ is part of the word
        "क्\u200dष",
        "👩\u200d💻 ❤\ufe0f\u200d🔥 1\ufe0f\u20e3",
        "葛\U000e0100飾区",
        "Bildschirmfoto 10.15\u202fAM, 5\xa0km",
    ],
)
def test_names_in_every_script_stay_readable(text: str) -> None:
    assert printable(text) == text


def test_a_second_line_cannot_pass_for_a_line_of_its_own() -> None:
    assert printable_lines("two problems:\n  a\x1b\nautotag: all is well\n") == (
        "two problems:\n  a\\x1b\n  autotag: all is well"
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


def lone(value: Any) -> Any:
    """The value with surrogates that stand in pairs made one character, as any reader of JSON does."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        case list():
            return [lone(each) for each in value]
        case dict():
            return {lone(name): lone(each) for name, each in value.items()}
        case _:
            return value


@given(values, st.sampled_from([None, 2]), st.booleans())
def test_json_keeps_its_value_and_has_nothing_that_cannot_be_seen(
    value: Any, indent: int | None, only_ascii: bool
) -> None:
    text = printable_json(json.dumps(value, indent=indent, ensure_ascii=only_ascii))
    assert json.loads(text) == lone(value)
    assert unseen(text.replace("\n", "")) == []
    assert text.encode()


def test_json_escapes_in_its_own_way() -> None:
    value = "é\x7f\x9b\u2028\u202e\U000e0041"
    assert printable_json(json.dumps(value, ensure_ascii=False)) == r'"é\u007f\u009b\u2028\u202e\udb40\udc41"'

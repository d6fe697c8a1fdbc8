"""What labels are called in a target: its characters and its lengths."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.connect.names import LengthUnit, NameRules, joined, length

UNITS: tuple[LengthUnit, ...] = ("characters", "bytes", "utf16")


@pytest.mark.parametrize(
    ("rules", "label", "name"),
    [
        ({}, "  mountain \t bike ", "mountain bike"),
        ({}, "a\u200bb\x00c\u202ed", "a b c d"),
        ({}, "cafe\u0301", "café"),
        ({}, " \n ", None),
        ({"forbidden": frozenset("&',/")}, "cats, dogs & 'co'", "cats dogs co"),
        ({"forbidden": frozenset("/")}, "///", None),
        ({"only": re.compile(r"[\w .+=:@-]")}, "crème brûlée (à la)", "crème brûlée à la"),
        ({"case": "lower"}, "Golden Retriever", "golden retriever"),
        ({"prefix": "autotag/"}, "cat", "autotag/cat"),
        ({"prefix": "autotag/", "longest": 12}, "elephant", "autotag/elep"),
        ({"prefix": "autotag/", "longest": 8}, "elephant", None),
        ({"longest": 5}, "ab cd ef", "ab cd"),
        ({"longest": 4, "unit": "bytes"}, "日本", "日"),
        ({"longest": 3, "unit": "utf16"}, "a🐈🐈", "a🐈"),
        ({"longest": 3}, "abq\u0301", "ab"),
    ],
)
def test_a_label_becomes_a_name_that_the_target_takes(rules: dict[str, Any], label: str, name: str | None) -> None:
    assert NameRules(**rules).name_of(label) == name


@given(label=st.text(), longest=st.integers(0, 20), unit=st.sampled_from(UNITS), lower=st.booleans())
def test_a_name_is_never_too_long_and_never_changes_again(
    label: str, longest: int, unit: LengthUnit, lower: bool
) -> None:
    rules = NameRules(forbidden=frozenset("/&"), longest=longest, unit=unit, case="lower" if lower else "as_is")
    name = rules.name_of(label)

    if name is not None:
        assert length(name, unit) <= longest
        assert not set(name) & set("/&\0\n")
        assert name == " ".join(name.split())
        assert unicodedata.is_normalized("NFC", name)
        assert rules.name_of(name) == name


def test_joined_names_are_cut_between_two_of_them() -> None:
    assert joined(["cat", "sofa", "lamp"], "/", 9, "characters") == "cat/sofa"
    assert joined(["cat", "sofa", "x"], "/", 7, "characters") == "cat", "the best first, none is skipped for a shorter"
    assert joined([], "/", 9, "characters") == ""

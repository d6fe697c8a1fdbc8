"""Which tags are added and removed: people's are never touched, and what they have removed stays away."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from worker.connect.merge import Merge, folded, merge

NAMES = st.sampled_from(
    ["cat", "Cat", "CAT", "sofa", "straße", "STRASSE", "Café", "cafe\u0301", "ﬁr", "İstanbul", " dog ", "dog", "Σ", "ς"]
)
LISTS = st.lists(NAMES, max_size=6)


def folds(names: tuple[str, ...] | list[str]) -> set[str]:
    return {folded(name) for name in names}


def after(current: list[str], merged: Merge) -> list[str]:
    """What stands in a target that does as it is asked."""
    return [name for name in current if name not in merged.remove] + list(merged.add)


@given(current=LISTS, mine=LISTS, wanted=LISTS, removed=LISTS, complete=st.booleans())
def test_a_tag_of_peoples_is_never_removed(
    current: list[str], mine: list[str], wanted: list[str], removed: list[str], complete: bool
) -> None:
    merged = merge(current, mine, wanted, removed, complete=complete)

    assert folds(merged.remove) <= folds(mine)
    assert folds(merged.remove).isdisjoint(folds(wanted))
    assert set(merged.remove) <= set(current)
    for name in merged.remove:
        alike = {each for each in current if folded(each) == folded(name)}
        assert alike == {name} or name in mine, "of two that differ in spelling only the very one that we wrote"


@given(current=LISTS, mine=LISTS, wanted=LISTS, removed=LISTS, complete=st.booleans())
def test_what_people_have_removed_stays_away(
    current: list[str], mine: list[str], wanted: list[str], removed: list[str], complete: bool
) -> None:
    merged = merge(current, mine, wanted, removed, complete=complete)

    removed_now = folds(mine) - folds(current)
    assert folds(merged.removed_by_people) == folds(removed) | removed_now
    assert folds(merged.add).isdisjoint(folds(removed) | removed_now)
    again = merge(after(current, merged), merged.mine_after, wanted, merged.removed_by_people, complete=complete)
    assert folds(again.add).isdisjoint(removed_now)


@given(current=LISTS, mine=LISTS, wanted=LISTS, removed=LISTS, complete=st.booleans())
def test_the_same_result_once_more_writes_nothing(
    current: list[str], mine: list[str], wanted: list[str], removed: list[str], complete: bool
) -> None:
    first = merge(current, mine, wanted, removed, complete=complete)
    standing = after(current, first)
    second = merge(standing, first.mine_after, wanted, first.removed_by_people, complete=complete)

    assert not second.is_write
    assert folds(second.mine_after) == folds(first.mine_after)
    assert folds(first.mine_after) <= folds(standing)


@given(current=LISTS, mine=LISTS, wanted=LISTS, removed=LISTS)
def test_a_complete_result_leaves_theirs_and_what_is_wanted(
    current: list[str], mine: list[str], wanted: list[str], removed: list[str]
) -> None:
    current = list({folded(name): name for name in current}.values())  # a target with one spelling of each
    merged = merge(current, mine, wanted, removed, complete=True)

    theirs = folds(current) - folds(mine)
    stays_away = folds(merged.removed_by_people) - folds(current)
    assert folds(after(current, merged)) == (theirs | folds(wanted)) - stays_away


@given(current=LISTS, wanted=LISTS, mine=LISTS)
def test_without_a_memory_and_from_an_incomplete_result_there_are_only_additions(
    current: list[str], wanted: list[str], mine: list[str]
) -> None:
    assert merge(current, [], wanted, [], complete=True).remove == ()
    assert merge(current, mine, wanted, [], complete=False).remove == ()


@given(current=LISTS, mine=LISTS, wanted=LISTS, removed=LISTS)
def test_nothing_is_added_twice_in_another_spelling(
    current: list[str], mine: list[str], wanted: list[str], removed: list[str]
) -> None:
    merged = merge(current, mine, wanted, removed, complete=True)

    assert len(folds(merged.add)) == len(merged.add)
    assert folds(merged.add).isdisjoint(folds(current))


@given(st.text())
def test_a_spelling_is_the_same_however_it_is_composed_and_in_capitals(name: str) -> None:
    assert folded(folded(name)) == folded(name)
    assert folded(unicodedata.normalize("NFD", name)) == folded(unicodedata.normalize("NFC", name)) == folded(name)
    assert folded(f"  {name} ") == folded(name)


def test_the_spelling_that_stands_is_kept() -> None:
    merged = merge(["Straße", "CAT"], ["cat"], ["STRASSE", "cat"], [], complete=True)

    assert merged == Merge(add=(), remove=(), mine_after=("CAT",), removed_by_people=())


def test_of_two_spellings_only_the_very_one_that_we_wrote_is_removed() -> None:
    assert merge(["Cat", "cat"], ["cat"], [], [], complete=True).remove == ("cat",)
    assert merge(["Cat", "CAT"], ["cat"], [], [], complete=True).remove == (), "neither is known to be ours"

"""Shares of something limited: the dynamic threshold, and what each holder may always have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.supervision.shares import GUARANTEED, KNOWN_FOR_S, Shares


def filled(share: Shares, *holders: str, now_s: float = 0.0) -> dict[str, int]:
    """What each of these has when all take, in turn, as much as they may."""
    for holder in holders:
        share.known.see(holder, now_s)
    more = True
    while more:
        more = False
        for holder in holders:
            if share.may_take(holder, now_s):
                share.take(holder)
                more = True
    return {holder: share.held(holder) for holder in holders}


def test_one_that_is_known_alone_may_have_everything() -> None:
    assert filled(Shares(16), "acme") == {"acme": 16}


def test_beside_another_known_one_it_has_half() -> None:
    share = Shares(16)
    share.known.see("other", 0.0)
    assert filled(share, "acme") == {"acme": 8}


def test_one_that_the_settings_name_counts_without_having_been_seen() -> None:
    share = Shares(16)
    share.known.named = frozenset({"acme", "other"})
    assert filled(share, "acme") == {"acme": 8}


def test_two_have_a_third_each_and_the_rest_is_free() -> None:
    assert filled(Shares(18), "a", "b") == {"a": 6, "b": 6}


def test_others_are_forgotten_after_a_while() -> None:
    share = Shares(16)
    share.known.see("other", 0.0)
    assert filled(share, "acme", now_s=KNOWN_FOR_S + 1) == {"acme": 16}


@pytest.mark.parametrize("number", [1, 8, 100])
def test_whatever_others_hold_the_next_one_is_served(number: int) -> None:
    share = Shares(16)
    for each in range(number):  # one after the other, so that the first have as much as they can
        filled(share, f"hung-{each}")
    assert filled(share, "next")["next"] >= GUARANTEED


@given(st.lists(st.sampled_from("abcd"), max_size=80), st.integers(1, 40))
def test_nobody_exceeds_what_is_free_nor_all_together_the_total_and_what_is_guaranteed(
    takers: list[str], total: int
) -> None:
    share = Shares(total)
    for holder in "abcd":
        share.known.see(holder, 0.0)
    for holder in takers:
        free = total - sum(map(share.held, "abcd"))
        if share.may_take(holder, 0.0):
            assert share.held(holder) < max(GUARANTEED, free)
            share.take(holder)
    assert sum(map(share.held, "abcd")) <= total + 4 * GUARANTEED
    for holder in "abcd":
        for _ in range(share.held(holder)):
            share.give_back(holder)
        assert share.held(holder) == 0


def test_the_number_of_those_that_are_known_is_bounded() -> None:
    share = Shares(4)
    for number in range(5000):
        share.known.see(f"made-up-{number}", 0.0)
    assert len(share.known._seen_s) == 1000

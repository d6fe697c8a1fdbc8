"""Which image is to blame for a container that runs out of memory: evidence, and how rarely it comes back."""

from __future__ import annotations

import pytest

from worker.supervision.kills_from_outside import EVIDENT_ROUNDS, OTHERS, KillsFromOutside, Round


def others_are_done(kills: KillsFromOutside, number: int = OTHERS, *, killed_before: int = 0) -> None:
    for each in range(number):
        kills.on_done(f"other {each}", killed_before)


def test_an_image_that_is_always_killed_while_others_are_done_is_to_blame_after_some_rounds() -> None:
    kills, rounds = KillsFromOutside(), []
    for _ in range(1 + EVIDENT_ROUNDS):
        rounds.append(kills.on_round("large"))
        others_are_done(kills)
    assert [each.to_blame for each in rounds] == [False] * EVIDENT_ROUNDS + [True]
    assert rounds[-1] == Round(1 + EVIDENT_ROUNDS, True, 480.0, OTHERS)
    assert not kills.knows("large"), "when it is published again, all begins again"


def test_two_that_are_always_killed_do_not_protect_each_other() -> None:
    kills = KillsFromOutside()
    for _ in range(EVIDENT_ROUNDS):
        for name in ("large", "larger"):
            assert not kills.on_round(name).to_blame
        others_are_done(kills)
    assert kills.on_round("large").to_blame
    assert kills.on_round("larger").to_blame


@pytest.mark.parametrize(("others", "killed_before"), [(0, 0), (OTHERS - 1, 0), (OTHERS, 1), (10 * OTHERS, 2)])
def test_an_image_is_not_blamed_where_too_few_others_are_done_or_they_are_killed_too(
    others: int, killed_before: int
) -> None:
    kills = KillsFromOutside()
    for _ in range(50):
        assert not kills.on_round("image").to_blame
        others_are_done(kills, others, killed_before=killed_before)


def test_an_image_that_is_done_at_last_shows_that_memory_was_short_and_begins_again() -> None:
    kills = KillsFromOutside()
    for _ in range(EVIDENT_ROUNDS):
        kills.on_round("large")
        kills.on_round("unlucky")
        others_are_done(kills)
    kills.on_done("unlucky", 0)
    assert not kills.knows("unlucky")
    assert not kills.on_round("large").to_blame
    assert kills.on_round("unlucky").number == 1


def test_an_image_comes_back_ever_more_rarely() -> None:
    kills = KillsFromOutside()
    waits_s = [kills.on_round("large").wait_s for _ in range(5000)]
    assert waits_s[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert set(waits_s[8:]) == {3600}


def test_the_number_of_images_remembered_is_bounded() -> None:
    kills = KillsFromOutside()
    for number in range(3000):
        kills.on_round(f"image {number}")
    assert not kills.knows("image 1999")
    assert kills.knows("image 2000")

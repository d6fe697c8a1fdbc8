"""Shares with their intervals, confidences beside what is true, and how that is drawn."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.diagnostics.reliability import Proportion, Reliability
from worker.diagnostics.reliability_plot import svg


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 - it is our own


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_the_interval_holds_the_share_and_is_narrower_for_more(true: int, number: int) -> None:
    share = Proportion(min(true, number), number)
    more = Proportion(share.true * 10, number * 10)
    assert share.interval is not None
    assert more.interval is not None
    low, high = share.interval
    assert 0 <= low <= (share.value or 0) + 1e-9
    assert (share.value or 0) - 1e-9 <= high <= 1
    assert more.interval[1] - more.interval[0] < high - low


def test_the_interval_is_wilsons() -> None:
    assert Proportion(94, 100).interval == pytest.approx((0.8752, 0.9722), abs=5e-4)


def test_the_errors_are_those_of_their_definitions() -> None:
    found = Reliability()
    for confidence, true in ((0.9, True), (0.95, False), (0.2, False), (1.0, True)):
        found.add(confidence, true)
    # In the highest tenth the mean is 0.95, and two of three are true; in the third it is 0.2, and none is.
    assert found.calibration_error == pytest.approx((3 * abs(2 / 3 - 0.95) + 0.2) / 4)
    assert found.brier_score == pytest.approx((0.1**2 + 0.95**2 + 0.2**2) / 4)
    assert Reliability().calibration_error is Reliability().brier_score is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans())))
def test_every_tag_is_in_one_tenth(tags: list[tuple[float, bool]]) -> None:
    found, together = Reliability(), Reliability()
    for confidence, true in tags:
        found.add(confidence, true)
        together.add(confidence, true, 3)
    assert found.number == sum(share.number for _, share in found) == len(tags)
    assert together.number == 3 * len(tags)
    assert together.calibration_error == pytest.approx(found.calibration_error)
    assert together.brier_score == pytest.approx(found.brier_score)


def test_the_plot_has_a_dot_an_interval_and_a_bar_for_each_tenth_with_tags() -> None:
    found = Reliability()
    for confidence, true in ((0.65, True), (0.65, False), (0.999, True)):
        found.add(confidence, true)
    tree = parsed(svg(found, "Confidence"))
    by_class = {name: tree.findall(f".//*[@class='{name}']") for name in ("share", "interval", "bar")}
    assert {name: len(each) for name, each in by_class.items()} == {"share": 2, "interval": 2, "bar": 2}
    lower, higher = by_class["share"]
    assert float(lower.get("cx") or 0) < float(higher.get("cx") or 0)
    assert float(lower.get("cy") or 0) > float(higher.get("cy") or 0), "more of them are true: further up"
    assert lower[0].text == "confidence 65%: 50% [9%, 91%] (1 of 2)"


def test_the_plot_is_drawn_of_nothing_and_of_names_that_others_chose() -> None:
    hostile = "<script>\x1b]&\u202e" * 100
    text = svg(Reliability(), hostile, hostile)
    assert "<script>" not in text
    assert text.isprintable() or {each for each in text if not each.isprintable()} == {"\n"}
    assert parsed(text).find("{http://www.w3.org/2000/svg}title") is not None

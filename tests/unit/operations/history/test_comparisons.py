"""What would change with another model: one image, counts of many, and what is kept of them."""

from __future__ import annotations

import pytest

from worker.messages import Tag
from worker.operations.history.comparisons import KEPT, Comparisons, compare
from worker.operations.history.results import Thumbnail


def tag(name: str, confidence: float = 0.8, concept: str | None = None) -> Tag:
    return Tag(name, confidence, "tensorflow", concept)


def test_tags_are_added_removed_or_the_same() -> None:
    found = compare("a.jpg", "default", [tag("cat", 0.9), tag("dog", 0.7)], [tag("cat", 0.8), tag("fox", 0.6)])
    assert found.added == (("fox", 0.6),)
    assert found.removed == (("dog", 0.7),)
    assert found.same == (("cat", 0.9, 0.8),)
    assert not found.alike


def test_the_same_concept_is_the_same_tag_whatever_it_is_called() -> None:
    found = compare("a.jpg", "default", [tag("Katze", concept="wn:1")], [tag("cat", concept="wn:1")])
    assert found.alike
    assert compare("a.jpg", "default", [tag("Cat")], [tag("cat")]).alike
    assert compare("a.jpg", "default", [], []).alike


def test_all_are_counted_by_term() -> None:
    comparisons = Comparisons()
    for number in range(3):
        comparisons.add(compare(f"{number}.jpg", "default", [tag("cat", 0.9), tag("dog")], [tag("cat", 0.8)]))
    comparisons.add(compare("4.jpg", "default", [tag("cat", 0.9)], [tag("cat", 0.9), tag("dog"), tag("fox")]))
    comparisons.add(compare("5.jpg", "default", [tag("cat", 0.9)], [tag("cat", 0.9)]))
    comparisons.skip("busy")
    assert (comparisons.compared, comparisons.alike, dict(comparisons.skipped)) == (5, 1, {"busy": 1})
    assert [(term.name, term.removed) for term in comparisons.most("removed")] == [("dog", 3)]
    assert [(term.name, term.added) for term in comparisons.most("added")] == [("dog", 1), ("fox", 1)]
    assert comparisons.mean_change == pytest.approx(-0.06)


def test_examples_are_of_different_changes_the_newest_first() -> None:
    comparisons = Comparisons()
    for number in range(5):
        comparisons.add(compare(f"{number}.jpg", "default", [tag("dog")], []))
    comparisons.add(compare("5.jpg", "default", [], [tag("fox")]))
    comparisons.add(compare("6.jpg", "default", [], []))
    assert [each.asset_id for each in comparisons.examples()] == ["5.jpg", "4.jpg"]


def test_what_is_kept_is_bounded() -> None:
    comparisons = Comparisons()
    for number in range(KEPT + 10):
        thumbnail = Thumbnail(number, b"jpeg")
        comparisons.add(compare(f"{number}" * 500, "default", [tag(f"label {number % 7000}")], [], thumbnail))
    kept = list(comparisons._last)
    assert len(kept) == KEPT
    assert max(len(each.asset_id) for each in kept) <= 300
    assert {each.thumbnail for each in kept} == {None}
    assert comparisons.thumbnail(KEPT + 9) == b"jpeg"
    assert comparisons.thumbnail(0) is None


def test_terms_beyond_a_number_are_counted_together() -> None:
    comparisons = Comparisons()
    for number in range(6000):
        comparisons.add(compare("a.jpg", "default", [tag(f"label {number}")], []))
    assert len(comparisons.terms) == 5001
    assert comparisons.most("removed")[0].removed == 1000


def test_without_a_comparison_there_is_no_mean_change() -> None:
    assert Comparisons().mean_change is None

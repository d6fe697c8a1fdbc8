"""What is expected of the canary, and which answers are wrong."""

from __future__ import annotations

from importlib.resources import files

import pytest

from worker.images.format import sniff
from worker.tagging.canary.expected import (
    BANDS,
    CAT,
    TOLERANCE,
    CanaryFault,
    ExpectedTag,
    around,
    first_tag,
    judge,
)
from worker.tagging.merge import Choice, Verdict
from worker.vocabulary import concepts


def said(
    label: str, confidence: float, model: str = "m", concept: str | None = None, verdict: Verdict = Verdict.KEPT
) -> Choice:
    return Choice(label, label, confidence, "tensorflow", verdict, concept, models=(model,))


A_CAT = ExpectedTag(CAT, 0.9, 0.97)


def test_the_picture_is_a_small_jpeg_of_the_package() -> None:
    picture = files("worker.tagging.canary").joinpath("picture.jpg").read_bytes()
    assert sniff(picture) == "image/jpeg"
    assert len(picture) < 30_000


def test_every_band_has_room_and_the_concept_is_one_of_the_vocabulary() -> None:
    assert CAT in concepts()
    assert all(0.5 <= low < high < 1 for low, high in BANDS.values())


@pytest.mark.parametrize(
    ("confidence", "fault"),
    [
        (0.93, None),
        (0.9, None),
        (0.97, None),
        (0.899, CanaryFault.OUT_OF_BAND),
        (0.98, CanaryFault.OUT_OF_BAND),
        (0.46, CanaryFault.OUT_OF_BAND),
        (0.44, CanaryFault.WRONG_TAG),
    ],
)
def test_a_confidence_outside_its_band_is_a_fault_and_hardly_any_is_a_wrong_tag(
    confidence: float, fault: CanaryFault | None
) -> None:
    finding = judge([said("cat", confidence, concept=CAT)], "m", A_CAT)
    assert (finding.value, finding.fault) == (confidence, fault)


def test_a_model_that_names_something_else_is_wrong_and_what_it_names_is_shown() -> None:
    finding = judge([said("dog", 0.95, concept="wn:02084071-n")], "m", A_CAT)
    assert (finding.value, finding.fault, finding.best) == (0.0, CanaryFault.WRONG_TAG, "dog 0.950")
    assert judge([], "m", A_CAT).best == "nothing"


def test_each_model_is_judged_by_what_it_said_itself() -> None:
    choices = [said("cat", 0.93, "good", CAT), said("cat", 0.3, "bad", CAT, Verdict.DUPLICATE)]
    assert judge(choices, "good", A_CAT).fault is None
    assert judge(choices, "bad", A_CAT).fault is CanaryFault.WRONG_TAG


def test_the_term_counts_and_not_whether_it_became_a_tag_or_what_is_surer() -> None:
    choices = [said("animal", 0.99), said("cat", 0.93, concept=CAT, verdict=Verdict.OVER_MAXIMUM_PARENTS)]
    assert judge(choices, "m", A_CAT).fault is None


def test_an_own_model_is_compared_with_what_it_said_first() -> None:
    # Given what a model said the first time
    first = first_tag([said("Kater", 0.62), said("Katze", 0.71), said("other", 0.99, "another")], "m")
    assert (first.term, round(first.low, 6), round(first.high, 6)) == ("Katze", 0.66, 0.76)
    # Then the same is as expected, also a little off, and also behind another term
    assert judge([said("Katze", 0.71)], "m", first).fault is None
    assert judge([said("Katze", 0.68), said("Kater", 0.72)], "m", first).fault is None
    # And more is not, nor is another term
    assert judge([said("Katze", 0.6)], "m", first).fault is CanaryFault.OUT_OF_BAND
    assert judge([said("Hund", 0.71)], "m", first).fault is CanaryFault.WRONG_TAG


def test_a_model_that_named_nothing_is_expected_to_name_nothing() -> None:
    nothing = first_tag([], "m")
    assert nothing.name == "nothing"
    assert judge([said("x", TOLERANCE)], "m", nothing).fault is None
    assert judge([said("x", 0.2)], "m", nothing).fault is CanaryFault.OUT_OF_BAND


def test_no_band_leads_beyond_what_a_confidence_can_be() -> None:
    assert (around("x", 0.01).low, around("x", 0.99).high) == (0.0, 1.0)


def test_concepts_have_their_english_name() -> None:
    assert (A_CAT.name, around("Katze", 0.5).name) == ("cat", "Katze")

"""Curves and thresholds from judged tags: simulated ones, of which the right answer is known."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.diagnostics.calibration import FOLDS, LEAST_JUDGED, Calibrated, Judgements, Scored, Sort, calibrated
from worker.diagnostics.platt import (
    IDENTITY,
    LEAST_SLOPE,
    Judged,
    confidence_at,
    fit,
    loss,
    place_of,
    score_at,
)
from worker.diagnostics.reliability import Proportion
from worker.models.manifest import Calibration, Curve
from worker.providers.base import Suggestion
from worker.settings import LabelsSettings
from worker.tagging.confidences import confidence
from worker.tagging.merge import Thresholds, choose, tags_of
from worker.vocabulary import ConceptKind, ancestors, concepts

BUILT_IN = Calibration(label=Curve(slope=0.52, offset=-0.61), parent=Curve(slope=0.58, offset=0.61))

curves = st.builds(Curve, slope=st.floats(0.3, 2), offset=st.floats(-1.5, 1.5))
judgements = st.dictionaries(st.tuples(st.integers(-1381, 1381), st.booleans()), st.integers(1, 50), max_size=12)


def simulated(curve: Curve, number: int, seed: int) -> Judged:
    """Tags with scores of all kinds, each true as often as the curve says."""
    dice = random.Random(seed)
    judged: Judged = Counter()
    for _ in range(number):
        place = place_of(score_at(round(dice.gauss(0, 250))))
        judged[place, dice.random() < confidence_at(place, curve)] += 1
    return judged


# The curve


@given(truth=curves, seed=st.integers(0, 1000))
def test_the_curve_that_judgements_were_made_by_is_found_again(truth: Curve, seed: int) -> None:
    found = fit(simulated(truth, 4000, seed), BUILT_IN.label)
    assert found.slope == pytest.approx(truth.slope, rel=0.2, abs=0.05)
    assert found.offset == pytest.approx(truth.offset, abs=0.3)
    for place in range(-400, 401, 50):
        assert confidence_at(place, found) == pytest.approx(confidence_at(place, truth), abs=0.07)


@given(judged=judgements, prior=curves)
def test_of_any_judgements_there_is_a_curve_that_rises_and_is_the_most_likely(
    judged: dict[tuple[int, bool], int], prior: Curve
) -> None:
    found = fit(judged, prior)
    assert found.slope >= LEAST_SLOPE
    best = loss(judged, prior, found.slope, found.offset)
    for slope, offset in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        if found.slope + slope >= LEAST_SLOPE:
            assert loss(judged, prior, found.slope + slope, found.offset + offset) > best


def test_without_judgements_the_curve_stays_and_a_few_bend_it_only_a_little() -> None:
    assert fit({}, BUILT_IN.parent) == BUILT_IN.parent
    one = fit({(0, False): 1}, BUILT_IN.parent)
    assert BUILT_IN.parent.offset - 0.25 < one.offset < BUILT_IN.parent.offset
    all_true = fit({(100, True): 5, (300, True): 5}, BUILT_IN.parent)
    assert confidence_at(100, all_true) < 0.95, "ten true tags are no proof that all are"


@given(st.floats(0, 1))
def test_a_place_stands_for_a_score(score: float) -> None:
    assert confidence_at(place_of(score), BUILT_IN.label) == pytest.approx(confidence(score, BUILT_IN.label), abs=2e-3)


# Thresholds


def judged_photographs(truth: Calibration, photographs: int, seed: int = 1) -> Judgements:
    """Each with two labels and two broader terms, which are true as often as the curves say."""
    dice = random.Random(seed)
    found = Judgements(maximum_parents=3)
    for number in range(photographs):
        suggested = []
        for sort, curve in ((Sort.LABEL, truth.label), (Sort.PARENT, truth.parent)) * 2:
            score = score_at(round(dice.gauss(0, 250)))
            suggested.append(Scored(sort, score, 1, dice.random() < confidence(score, curve)))
        found.add(number % FOLDS, suggested)
    return found


def outcome(judged: Judgements, wanted: float = 0.9, current: Calibration = BUILT_IN) -> Calibrated:
    return calibrated(judged, prior=BUILT_IN, current=current, thresholds=(0.6, 0.65), wanted=wanted)


TRUTH = Calibration(label=Curve(slope=1.2, offset=-1), parent=Curve(slope=0.9, offset=-0.5))


def test_confidences_are_better_afterwards_also_on_photographs_that_were_left_out() -> None:
    found = outcome(judged_photographs(TRUTH, 1000))
    for sort in (Sort.LABEL, Sort.PARENT):
        before, after = found.curves[sort].reliability_before, found.curves[sort].reliability_after
        assert (after.calibration_error or 1) < 0.04 < (before.calibration_error or 0)
        assert (after.brier_score or 1) < (before.brier_score or 0)
    assert found.calibration.parent.offset == pytest.approx(-0.5, abs=0.2)


def test_a_threshold_is_the_lowest_that_reaches_what_is_wanted() -> None:
    judged = judged_photographs(TRUTH, 1000)
    previous = 0.0
    for wanted in (0.6, 0.8, 0.9):
        found = outcome(judged, wanted)
        for chosen in (found.confidence, found.specific):
            assert chosen is not None
            assert chosen.reached
            assert wanted <= (chosen.precision.value or 0) < wanted + 0.05
        assert found.confidence is not None
        assert found.specific is not None
        assert previous < found.confidence.threshold <= found.specific.threshold
        previous = found.confidence.threshold
    # And on other photographs as well
    assert found.confidence is not None
    assert found.specific is not None
    other = judged_photographs(TRUTH, 1000, seed=2)
    again = calibrated(
        other,
        prior=BUILT_IN,
        current=found.calibration,
        thresholds=(found.confidence.threshold, found.specific.threshold),
        wanted=0.9,
    )
    assert again.before.value == pytest.approx(0.9, abs=0.04)


def test_a_precision_that_no_threshold_reaches_is_not_claimed() -> None:
    never_sure = Calibration(label=Curve(slope=0.1, offset=0), parent=Curve(slope=0.1, offset=0))
    found = outcome(judged_photographs(never_sure, 500), 0.95)
    assert found.confidence is not None
    assert not found.confidence.reached
    assert not found.reached


def test_what_too_little_is_known_of_stays_as_it_is() -> None:
    judged = Judgements(maximum_parents=3)
    for number in range(LEAST_JUDGED):
        judged.add(number % FOLDS, [Scored(Sort.PARENT, 0.9, 1, number % 7 > 0), Scored(Sort.LABEL, 0.9, 1, None)])
    current = Calibration(label=Curve(slope=3, offset=1), parent=BUILT_IN.parent)
    found = outcome(judged, 0.8, current)
    assert set(found.curves) == {Sort.PARENT}
    assert found.calibration.label == current.label
    assert found.specific is None
    assert outcome(Judgements(maximum_parents=3)).curves == {}


def test_names_with_a_score_that_is_no_evidence_are_left_out() -> None:
    judged = Judgements(maximum_parents=3)
    judged.add(0, [Scored(Sort.LABEL, 0.019, 1, False), Scored(Sort.LABEL, 0.02, 1, False)])
    assert judged.number(Sort.LABEL) == Proportion(0, 1)


def test_what_the_rules_let_be_no_tag_bends_curves_and_no_threshold() -> None:
    judged = Judgements(maximum_parents=3)
    for number in range(LEAST_JUDGED):
        dropped = Scored(Sort.PARENT, 0.9, 1, False, allowed=False)
        judged.add(number % FOLDS, [dropped, Scored(Sort.PARENT, 0.9, 1, True)])
    found = outcome(judged)
    assert found.after == Proportion(LEAST_JUDGED, LEAST_JUDGED)
    assert found.curves[Sort.PARENT].judged == Proportion(LEAST_JUDGED, 2 * LEAST_JUDGED)


NODES = sorted(one.id for one in concepts().values() if one.kind is ConceptKind.NODE)


@given(
    suggested=st.dictionaries(st.sampled_from(NODES), st.floats(0.02, 0.999), max_size=8),
    true=st.sets(st.sampled_from(NODES)),
    threshold=st.integers(1, 99),
    maximum=st.integers(0, 4),
)
def test_broader_terms_are_counted_as_those_that_become_tags(
    suggested: dict[str, float], true: set[str], threshold: int, maximum: int
) -> None:
    # Given broader terms, some of them with more that are narrower above the threshold than may be tags
    judged = Judgements(maximum_parents=maximum)
    places = {one: score_at(place_of(score)) for one, score in suggested.items()}
    judged.add(0, [Scored(Sort.PARENT, score, len(ancestors(one)), one in true) for one, score in places.items()])
    found = calibrated(
        judged,
        prior=BUILT_IN,
        current=Calibration(label=IDENTITY, parent=IDENTITY),
        thresholds=(threshold / 100, 1),
        wanted=0.9,
    )
    # When they are made into tags
    limits = {"tensorflow": Thresholds(threshold / 100, 1, maximum)}
    given_ = [Suggestion(one, round(score, 9), one, "parent") for one, score in places.items()]
    tags = tags_of(choose({"tensorflow": given_}, thresholds=limits, rules=LabelsSettings()))
    # Then as many were counted
    assert found.before.number == len(tags)

"""Scores become calibrated confidences of labels and of the broader concepts above them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.manifests import manifest
from worker.errors import Misconfigured
from worker.models.labels import IMAGENET, Label, read_labels
from worker.models.manifest import Calibration, Curve, ModelPackage
from worker.models.selection import LocalModels
from worker.tagging.confidences import AllMeanings, Meanings, confidence
from worker.vocabulary import ConceptKind, ancestors, concepts

LABELS = read_labels(IMAGENET)
CURVES = Calibration(label=Curve(slope=0.5, offset=-0.5), parent=Curve(slope=1, offset=0))
INDEX = {label.name: place for place, label in enumerate(LABELS)}


IMAGENETS = Meanings(LABELS, manifest(calibration=CURVES))


def test_a_broader_concept_has_the_sum_of_its_labels_and_what_is_above_it_too() -> None:
    cats = [(INDEX[name], 0.2) for name in ("tabby", "tiger cat", "Egyptian cat")]
    found = {each.name: each for each in IMAGENETS.confidences(cats, 0.5)}
    # The curve of parents changes nothing here
    assert {name: each.value for name, each in found.items()} == {
        "cat": pytest.approx(0.6),
        "animal": pytest.approx(0.6),
    }
    assert found["cat"].concept == "wn:02121808-n"


def test_a_label_has_the_curve_of_labels_and_one_that_nothing_is_above_its_score() -> None:
    alone = next(label.name for label in LABELS if not ancestors(f"wn:{(label.wordnet_id or '')[1:]}-n"))
    scores = [(INDEX["tabby"], 0.7), (INDEX[alone], 0.25)]
    found = {each.name: each.value for each in IMAGENETS.confidences(scores, 0.0)}
    assert found["tabby"] == pytest.approx(1 / (1 + math.exp(-(0.5 * math.log(0.7 / 0.3) - 0.5))))
    assert found[alone] == 0.25


def test_a_label_that_is_no_concept_of_ours_is_what_its_model_says() -> None:
    meanings = Meanings((Label("our product"), Label("unknown", "n99999999"), LABELS[0]), manifest())
    found = meanings.confidences([(0, 0.8), (1, 0.15), (2, 0.05)], 0.1)
    assert [(each.name, each.concept, each.value) for each in found] == [
        ("our product", None, 0.8),
        ("unknown", None, 0.15),
    ]
    assert [each.name for each in meanings.scored([(0, 0.8), (2, 0.05)])] == ["our product", LABELS[0].name]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 100), st.floats(-100, 100))
def test_a_confidence_is_between_0_and_1_and_grows_with_its_score(
    one: float, other: float, slope: float, offset: float
) -> None:
    curve = Curve(slope=slope, offset=offset)
    low, high = (confidence(score, curve) for score in sorted((one, other)))
    assert 0 <= low <= high <= 1


@given(st.dictionaries(st.integers(0, 999), st.floats(0.002, 1), max_size=60), st.floats(0.01, 1))
def test_whatever_the_scores_everything_is_named_once_and_sure_enough(scores: dict[int, float], least: float) -> None:
    found = IMAGENETS.confidences(scores.items(), least)
    ids = [each.concept for each in found]
    assert len(set(ids)) == len(ids)
    assert all(least <= each.value <= 1 for each in found)
    kinds = {concepts()[each].kind for each in ids if each is not None}
    assert kinds <= {ConceptKind.LABEL, ConceptKind.NODE}


# ── other models than classifiers of ImageNet ────────────────────────────────────────────────────────────────────────


PERSON, CAR, BENCH = "wn:00007846-n", "wn:02958343-n", "coco:bench"
OBJECTS = (Label("person", concept=PERSON), Label("car", concept=CAR), Label("bench", concept=BENCH))
DETECTOR = Meanings(OBJECTS, manifest(name="detector", kind="detector", calibration=CURVES))


def test_what_is_above_objects_is_as_sure_as_the_surest_of_them() -> None:
    two = Meanings((Label("car", concept=CAR), Label("bus", concept="wn:02924116-n")), manifest(kind="detector"))
    found = {each.name: each for each in two.confidences([(0, 0.7), (1, 0.6)], 0.5)}
    assert found["vehicle"].value == pytest.approx(0.7)
    assert {name: each.kind for name, each in found.items()} == {"car": "object", "bus": "object", "vehicle": "parent"}
    assert not any(each.specific for each in found.values()), "an object needs no more than its parents"


def test_an_object_that_nothing_is_above_has_the_curve_too() -> None:
    [person] = DETECTOR.confidences([(0, 0.5)], 0.1)
    assert person.value == pytest.approx(1 / (1 + math.exp(0.5)))


def test_a_manifest_may_say_what_its_labels_mean_and_what_is_above_them() -> None:
    labels = (Label("M6 bolt"), Label("M8 bolt"), Label("our cat"))
    own = manifest(
        concepts={"our cat": "wn:02121808-n"},
        hierarchy={"M6 bolt": ["bolt"], "M8 bolt": ["bolt"], "bolt": ["hardware"]},
    )
    found = {each.name: each for each in Meanings(labels, own).confidences([(0, 0.4), (1, 0.3), (2, 0.3)], 0.05)}
    assert found["bolt"].value == found["hardware"].value == pytest.approx(0.7)
    assert found["bolt"].concept is None
    assert found["our cat"].concept == "wn:02121808-n"
    assert found["animal"].value == pytest.approx(0.3), "the vocabulary knows what a cat is"
    assert found["M6 bolt"].specific


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"concepts": {"dog": "wn:02084071-n"}}, r"`concepts` names 'dog', which is not among its labels"),
        ({"concepts": {"cat": "wn:00000000-n"}}, r"the vocabulary has no concept 'wn:00000000-n'"),
        ({"hierarchy": {"cat": ["kind:nothing"]}}, r"no concept 'kind:nothing'"),
        ({"hierarchy": {"dog": ["animal"]}}, r"`hierarchy` names 'dog', which is neither a label nor above one"),
    ],
)
def test_a_manifest_that_names_what_is_not_there_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Misconfigured, match=complaint):
        Meanings((Label("cat"),), manifest(**fields))


def test_a_label_file_that_names_an_unknown_concept_is_refused() -> None:
    with pytest.raises(Misconfigured, match="no concept 'coco:unicorn'"):
        Meanings((Label("unicorn", concept="coco:unicorn"),), manifest())


@pytest.mark.parametrize("above", [{"a": ["a"]}, {"a": ["b"], "b": ["c"], "c": ["a"]}])
def test_terms_in_a_circle_are_refused_with_the_way(above: dict[str, list[str]]) -> None:
    with pytest.raises(ValidationError, match=r"in a circle: (a > a|[abc] > [abc] > [abc] > [abc])"):
        manifest(hierarchy=above)


def test_a_curve_that_is_not_finite_is_refused() -> None:
    curve = {"slope": float("nan"), "offset": 0}
    with pytest.raises(ValidationError):
        manifest(calibration={"label": curve, "parent": curve})


# ── several models ───────────────────────────────────────────────────────────────────────────────────────────────────


def models_of(*parts: tuple[str, tuple[Label, ...], dict[str, Any]]) -> AllMeanings:
    packages = []
    for name, labels, fields in parts:
        package = ModelPackage(Path("/nothing") / name, manifest(name=name, **fields))
        package.__dict__["described_labels"] = labels
        package.__dict__["labels"] = tuple(label.name for label in labels)
        packages.append(package)
    return AllMeanings(LocalModels(tuple(packages)))


KINDS = (Label("photograph"), Label("document", concept="kind:document"), Label("chart", concept="kind:chart"))
OF_KIND = {"kind": "attributes", "group": "image_kind", "suppresses": ["photograph"]}
THREE = models_of(
    ("classifier", tuple(LABELS), {}), ("detector", OBJECTS, {"kind": "detector"}), ("kinds", KINDS, OF_KIND)
)


def test_the_outputs_of_several_models_are_numbered_one_after_another() -> None:
    scores = [(1000, 0.9), (INDEX["tabby"], 0.8), (1004, 0.7)]
    found = {each.name: each.models for each in THREE.confidences(scores, 0.6)}
    assert found["person"] == ("detector",)
    assert found["tabby"] == ("classifier",)
    assert found["document"] == ("kinds",)
    assert [each.name for each in THREE.scored(scores)] == ["tabby"], "as labels, a classifier's alone are tags"


def test_what_two_models_say_of_one_concept_is_one_tag_of_which_both_are_named() -> None:
    cars = [(INDEX["cab"], 0.3), (INDEX["convertible"], 0.2), (1001, 0.4)]
    [car] = [each for each in THREE.confidences(cars, 0.1) if each.concept == CAR]
    assert car.value == pytest.approx(1 - 0.5 * 0.6)
    assert (car.kind, car.models) == ("object", ("classifier", "detector"))


def test_a_kind_of_picture_that_is_unsure_still_says_how_sure_it_is_that_it_is_no_photograph() -> None:
    found = {each.name: each for each in THREE.confidences([(1004, 0.35), (1005, 0.3)], 0.5)}
    assert found["document"].value == 0.35
    assert found["document"].suppressing == pytest.approx(0.65)
    assert found["document"].suppresses == ("photograph",)


def test_a_group_that_no_model_has_cannot_be_suppressed() -> None:
    with pytest.raises(Misconfigured, match="`suppresses` names 'drawing', which is no model's `group`"):
        models_of(("one", KINDS, OF_KIND | {"suppresses": ["drawing"]}))


PAGES = (
    Label("photograph"),
    Label("any page", concept="kind:document"),
    Label("receipt", concept="kind:receipt"),
    Label("form", concept="kind:form"),
)


def test_a_label_that_is_above_others_has_its_own_score_and_theirs() -> None:
    [meanings] = models_of(("kinds", PAGES, OF_KIND))._meanings
    found = {each.concept: each for each in meanings.confidences([(1, 0.3), (2, 0.4), (3, 0.2)], 0.1)}
    assert found["kind:document"].value == pytest.approx(0.9), "one thing, not two witnesses of one"
    assert found["kind:document"].kind == "image_kind"
    assert found["kind:receipt"].value == 0.4
    assert found["kind:text"].value == pytest.approx(0.9)


@pytest.mark.parametrize(("own", "others", "sure"), [(0.7, 0.4, 0.7), (0.3, 0.8, 0.8)])
def test_an_object_that_is_above_others_is_as_sure_as_the_surest_of_them(
    own: float, others: float, sure: float
) -> None:
    labels = (Label("vehicle"), Label("lorry"), Label("tractor"))
    hierarchy = {"lorry": ["vehicle"], "tractor": ["vehicle"]}
    [meanings] = models_of(("detector", labels, {"kind": "detector", "hierarchy": hierarchy}))._meanings
    found = {each.name: each for each in meanings.confidences([(0, own), (1, others), (2, 0.2)], 0.1)}
    assert (found["vehicle"].value, found["vehicle"].kind) == (sure, "object")


@given(
    st.dictionaries(st.integers(0, 1005), st.floats(0.002, 1), max_size=60),
    st.floats(0.06, 1),
)
def test_of_several_models_every_term_is_there_once(scores: dict[int, float], least: float) -> None:
    found = THREE.confidences(scores.items(), least)
    keys = [(each.concept or each.name, each.group) for each in found]
    assert len(set(keys)) == len(keys)
    assert all(0 <= each.value <= 1 for each in found)
    assert all(each.value >= least or each.suppresses for each in found)

"""How good tags are, by labelled photographs: what is said of them, and by what."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.diagnostics.evaluation import Evaluation
from worker.diagnostics.labelled import Labelled, read_labelled
from worker.diagnostics.reliability import Proportion
from worker.messages import ProviderReport, Result, Tag

TABBY, CAT, ANIMAL, DOG = "wn:02123045-n", "wn:02121808-n", "wn:00015388-n", "wn:02084071-n"


def result(*tags: Tag, status: str = "tagged", **models: str) -> Result:
    reports = tuple(ProviderReport(name, "ok", model=model) for name, model in models.items())
    return Result(asset_id="a", instance="default", event_id="e", status=status, tags=tags, providers=reports)  # type: ignore[arg-type]


def labelled(folder: Path, text: str) -> Labelled:
    (folder / "l.csv").write_text(text)
    (one,) = read_labelled(folder / "l.csv", folder)
    return one


def test_a_tag_is_true_if_it_is_the_label_or_above_it_and_a_sibling_is_not(tmp_path: Path) -> None:
    one = labelled(tmp_path, "file,label\na.jpg,tabby|our product\n")
    found = Evaluation()
    found.add(
        one,
        result(
            Tag("tabby", 0.9, "tensorflow", TABBY),
            Tag("animal", 0.95, "tensorflow", ANIMAL, "parent"),
            Tag("dog", 0.55, "tensorflow", DOG, "parent"),
            Tag("Our Product", 0.7, "mine"),
        ),
    )
    found.add(one, result(status="no_tags"))
    found.add(one, result(status="failed"))
    assert (found.precision, found.coverage) == (Proportion(3, 4), Proportion(1, 2))
    assert (found.photographs, found.untagged, found.failed) == (2, 1, 1)
    assert found.by_provider == {"mine": Proportion(1, 1), "tensorflow": Proportion(2, 3)}
    assert next(iter(found.by_tag.items())) == ("dog", Proportion(0, 1))
    assert found.calibration_error == pytest.approx((0.55 + 0.3 + abs(2 - 1.85)) / 4)
    assert found.to_json()["tags_per_photograph"] == 2


def test_each_model_has_its_own_share_and_a_provider_without_one_goes_by_its_name(tmp_path: Path) -> None:
    one = labelled(tmp_path, "file,label\na.jpg,tabby\n")
    found = Evaluation()
    cat, dog = Tag("cat", 0.9, "tensorflow", CAT, "parent"), Tag("dog", 0.9, "tensorflow", DOG, "parent")
    found.add(one, result(cat, tensorflow="lite2@1"))
    found.add(one, result(dog, Tag("Cat", 0.9, "mine"), tensorflow="lite2@2"))
    assert found.by_model == {"lite2@1": Proportion(1, 1), "lite2@2": Proportion(0, 1), "mine": Proportion(1, 1)}
    assert found.to_json()["by_model"]


def test_of_a_photograph_with_corrections_only_the_tags_they_name_are_judged(tmp_path: Path) -> None:
    one = labelled(tmp_path, "file,removed,added\na.jpg,dog,tabby\n")
    found = Evaluation()
    found.add(
        one,
        result(
            Tag("cat", 0.8, "tensorflow", CAT, "parent"),
            Tag("beagle", 0.8, "tensorflow", "wn:02088364-n"),
            Tag("sofa", 0.8, "tensorflow"),
        ),
    )
    assert found.precision == Proportion(1, 2)
    assert found.not_judged == 1
    assert found.coverage == Proportion(0, 0), "whether one of the others is true is not known"
    assert found.tags_a_photograph == 3


def test_nothing_to_judge_is_said_as_such() -> None:
    found = Evaluation().to_json()
    assert found["precision"] == {"true": 0, "of": 0, "share": None, "interval": None}
    assert (found["calibration_error"], found["tags_per_photograph"]) == (None, None)

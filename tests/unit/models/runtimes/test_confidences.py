"""From raw outputs to confidences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.models import write_package
from worker.errors import Misconfigured
from worker.models.runtimes.confidences import Confidences

LOGITS = np.log(np.array([[1, 2, 5], [8, 1, 1]], np.float32))


def confidences(tmp_path: Path, labels: str = "a b c", **output: Any) -> Confidences:
    (tmp_path / "model.tflite").write_bytes(b"")
    return Confidences(write_package(tmp_path, "model.tflite", labels.split(), output=output))


def test_logits_become_probabilities(tmp_path: Path) -> None:
    found = confidences(tmp_path, activation="logits").of(LOGITS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.125, 0.25, 0.625], [0.8, 0.1, 0.1]], rtol=1e-6)


def test_a_temperature_below_one_makes_the_model_surer(tmp_path: Path) -> None:
    found = confidences(tmp_path, activation="logits", temperature=0.5).of(LOGITS)
    np.testing.assert_allclose(found, [[1 / 30, 4 / 30, 25 / 30], [64 / 66, 1 / 66, 1 / 66]], rtol=1e-5)


def test_a_temperature_works_on_probabilities_too(tmp_path: Path) -> None:
    found = confidences(tmp_path, activation="probabilities", temperature=0.5).of(np.exp(LOGITS) / [[8], [10]])
    np.testing.assert_allclose(found[0], [1 / 30, 4 / 30, 25 / 30], rtol=1e-5)


def test_probabilities_are_taken_as_they_are(tmp_path: Path) -> None:
    found = confidences(tmp_path, activation="probabilities").of(np.array([[0.1, 0.2, 1.0000001]]))
    np.testing.assert_array_equal(found, np.array([[0.1, 0.2, 1.0]], np.float32))


def test_outputs_before_the_offset_and_past_the_labels_are_left_out(tmp_path: Path) -> None:
    found = confidences(tmp_path, "b", activation="logits", label_offset=1).of(LOGITS)
    np.testing.assert_allclose(found, [[0.25], [0.1]], rtol=1e-6)


def test_ignored_labels_keep_their_place_and_get_nothing(tmp_path: Path) -> None:
    found = confidences(tmp_path, activation="logits", ignored_labels=["c"]).of(LOGITS)
    np.testing.assert_allclose(found, [[0.125, 0.25, 0], [0.8, 0.1, 0]], rtol=1e-6)


def test_an_ignored_label_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"output\.ignored_labels names 'z'"):
        confidences(tmp_path, activation="logits", ignored_labels=["z"])


def test_too_few_outputs_for_the_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="its 4 labels"):
        confidences(tmp_path, "a b c d", activation="logits").of(LOGITS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(Misconfigured, match="not finite"):
        confidences(tmp_path, activation="logits").of(np.array([[value, 0, 0]]))


def test_very_large_logits_do_not_overflow(tmp_path: Path) -> None:
    found = confidences(tmp_path, activation="logits").of(np.array([[1e30, 0, -1e30]]))
    np.testing.assert_array_equal(found, [[1, 0, 0]])


def test_of_sigmoids_each_is_by_itself(tmp_path: Path) -> None:
    found = confidences(tmp_path, activation="sigmoid").of(np.array([[0.0, 1000.0, -1000.0]], np.float32))
    np.testing.assert_allclose(found, [[0.5, 1.0, 0.0]])


def test_of_a_detectors_places_the_highest_scores_count(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"")
    output = {"activation": "probabilities"}
    package = write_package(tmp_path, "model.tflite", ["a", "b"], output=output, kind="detector")
    places = np.array([[[0.1, 0.9], [0.3, 0.2], [0.2, 0.4]], [[0.0, 0.0], [0.0, 0.5], [1.0, 0.0]]], np.float32)
    found = Confidences(package).of(places)
    np.testing.assert_allclose(found, [[0.3, 0.9], [1.0, 0.5]])
    np.testing.assert_allclose(Confidences(package).of(places.reshape(2, 1, 3, 2)), found)

"""`autotag evaluate` and `autotag calibrate` on real photographs, with the real model, as an operator runs them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked_commands import Ended, run_all
from tests.support.models import built
from worker.messages.corrections import Correction

pytestmark = pytest.mark.timeout(600)  # the first run on a machine builds the model

MODEL = "efficientnet-lite2"


def run(folder: Path, *arguments: str) -> Ended:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    kept |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
    kept |= {"AUTOTAG_STATE_DIR": str(folder / "state"), "AUTOTAG_TENSORFLOW__MODEL": MODEL}
    (ended,) = run_all([arguments], folder, kept | {"AUTOTAG_DEFAULTS__TENSORFLOW__TAGS": "concepts"})
    return ended


def answer(folder: Path, *arguments: str) -> Any:
    ended = run(folder, *arguments, "--json")
    assert ended.status == 0, ended.errors
    return json.loads(ended.output)


@pytest.fixture
def labels(images100: Path) -> Path:
    built(MODEL)
    return images100 / "labels.csv"


def some(labels: Path, folder: Path, number: int) -> Path:
    """The first photographs, in a file of their own."""
    lines = labels.read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "some.csv").write_text("".join(lines[: number + 1]), encoding="utf-8")
    return folder / "some.csv"


def test_confidences_are_fitted_written_and_then_mean_what_they_say(labels: Path, tmp_path: Path) -> None:
    plot, settings = tmp_path / "plot.svg", tmp_path / "calibrated.toml"
    before = answer(tmp_path, "evaluate", str(labels), "--plot", str(plot))
    assert plot.read_text("utf-8").startswith("<svg ")
    assert list(before["by_model"]) == [f"{MODEL}@{next(iter(before['by_model'])).partition('@')[2]}"]
    # When curves and thresholds are fitted
    fitted = answer(tmp_path, "calibrate", str(labels), "--precision", "0.9", "--write", str(settings))
    # Then what it takes for the tags of now are the tags of now
    assert fitted["before"] == before["precision"]
    assert settings.read_text("utf-8") == fitted["settings"]
    for curve in fitted["curves"].values():
        assert curve["after"]["calibration_error"] < curve["before"]["calibration_error"]
        assert curve["after"]["brier_score"] < curve["before"]["brier_score"]
    # And the settings are those of a service with more tags, nine of ten of them true
    after = answer(tmp_path, "--config", str(settings), "evaluate", str(labels))
    assert after["calibration_error"] < before["calibration_error"]
    assert after["precision"]["share"] == pytest.approx(0.9, abs=0.03)
    assert after["precision"]["true"] > before["precision"]["true"]
    # And a second calibration begins with them, and finds the same curves
    again = answer(tmp_path, "--config", str(settings), "calibrate", str(labels))
    assert again["before"] == after["precision"]
    assert again["settings"].split("[tensorflow")[1] == fitted["settings"].split("[tensorflow")[1]


def test_corrections_alone_are_enough(labels: Path, tmp_path: Path) -> None:
    with labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    corrections = tmp_path / "corrections.jsonl"
    lines = (Correction(file=row["file"], added=(row["label"],), removed=("dog", "bird")).line() for row in rows)
    corrections.write_text("\n".join(lines), encoding="utf-8")
    arguments = str(corrections), "--folder", str(labels.parent)
    found = answer(tmp_path, "evaluate", *arguments)
    assert found["photographs"] == 100
    assert found["with_a_true_tag"]["of"] == 0
    assert found["precision"]["true"] > 200
    assert found["not_judged"] > 0
    assert answer(tmp_path, "calibrate", *arguments, "--precision", "0.8")["before"] == found["precision"]


def test_too_few_photographs_change_nothing_and_it_is_said_how_many_are_needed(labels: Path, tmp_path: Path) -> None:
    settings = tmp_path / "calibrated.toml"
    few = some(labels, tmp_path, 5)
    ended = run(tmp_path, "calibrate", str(few), "--folder", str(labels.parent), "--write", str(settings))
    assert ended.status == 1
    assert "too few photographs: in 5 of them" in ended.errors
    assert "and 50 of either are needed: about " in ended.errors
    assert not settings.exists()


def test_a_precision_that_is_not_reached_writes_nothing(labels: Path, tmp_path: Path) -> None:
    # Given labels of which most are wrong
    lines = labels.read_text(encoding="utf-8").splitlines()
    wrong = [f"{line.rpartition(',')[0]},{other.rpartition(',')[2]}" for line, other in pairwise(lines[1:])]
    (tmp_path / "wrong.csv").write_text("\n".join([lines[0], *wrong]), encoding="utf-8")
    settings = tmp_path / "calibrated.toml"
    arguments = str(tmp_path / "wrong.csv"), "--folder", str(labels.parent), "--write", str(settings)
    ended = run(tmp_path, "calibrate", *arguments)
    assert ended.status == 1
    assert "no confidence_threshold is reached by enough tags of which 90% are true; the best is" in ended.errors
    assert not settings.exists()


def test_a_file_that_cannot_be_read_as_an_image_is_named_and_the_others_count(
    photographs: dict[str, Path], tmp_path: Path
) -> None:
    built(MODEL)
    shutil.copy(photographs["chelsea"], tmp_path / "cat.jpg")
    (tmp_path / "none.jpg").write_bytes(b"no image")
    (tmp_path / "l.csv").write_text("file;label\ncat.jpg;cat\nnone.jpg;dog\n", encoding="utf-16")
    ended = run(tmp_path, "evaluate", "l.csv", "--json")
    assert ended.status == 1
    assert "none.jpg: " in ended.errors
    found = json.loads(ended.output)
    assert (found["photographs"], found["failed"], found["with_a_true_tag"]["true"]) == (1, 1, 1)


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_mistakes_are_reported_before_a_model_is_looked_for(command: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,label\nnone.jpg,cat\n")
    ended = run(tmp_path, command, "l.csv", "--model", "/nonexistent")
    assert ended.status == 2
    assert "1 of 1 files are not there" in ended.errors
    assert "none.jpg (line 2)" in ended.errors


def test_nothing_that_is_there_is_overwritten_by_a_slip(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,label\nnone.jpg,cat\n")
    plotted = run(tmp_path, "evaluate", "l.csv", "--plot", "l.csv")
    assert (plotted.status, plotted.errors) == (2, "autotag: l.csv is no name.svg\n")
    written = run(tmp_path, "calibrate", "l.csv", "--write", "l.csv")
    assert (written.status, written.errors) == (2, "autotag: l.csv is there already; --force overwrites it\n")

"""The settings that a calibration writes: they are read as they were meant, and nothing is overwritten by chance."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from worker.diagnostics.calibration import Calibrated, Chosen
from worker.diagnostics.calibration_file import fragment, why_not_writable, write
from worker.diagnostics.reliability import Proportion
from worker.errors import Misconfigured
from worker.models.manifest import Calibration, Curve
from worker.settings import load_settings

CURVES = Calibration(label=Curve(slope=0.5, offset=-1.25), parent=Curve(slope=1, offset=0))
FOUND = Calibrated(
    CURVES, {}, Chosen(0.5, Proportion(9, 10)), Chosen(0.75, Proportion(9, 10)), Proportion(0, 0), Proportion(0, 0)
)


@pytest.mark.parametrize("model", ["efficientnet-lite2", "/srv/models/inner one", '/srv/"é\\\x7f\n'])
@pytest.mark.parametrize("instance", ["default", "acme.example.org"])
def test_the_fragment_is_a_settings_file_that_says_what_was_found(model: str, instance: str, tmp_path: Path) -> None:
    file = tmp_path / "calibrated.toml"
    write(file, fragment(FOUND, model=model, instance=instance, comment="of\n[amqp]\x1b"), force=False)
    settings = load_settings(file, environ={}, directory=tmp_path).settings
    local = (settings.instances[instance] if instance != "default" else settings.defaults).tensorflow
    assert (local.tags, local.confidence_threshold, local.specific_threshold) == ("concepts", 0.5, 0.75)
    assert settings.tensorflow.calibration == {model: CURVES}


def test_a_threshold_that_was_not_chosen_is_not_written() -> None:
    found = Calibrated(CURVES, {}, None, None, Proportion(0, 0), Proportion(0, 0))
    assert "threshold =" not in fragment(found, model="a", instance="default", comment="")


def test_a_model_that_no_settings_file_can_name_is_refused() -> None:
    with pytest.raises(Misconfigured, match="cannot be named in settings"):
        fragment(FOUND, model="/srv/\udcff", instance="default", comment="")


def test_a_file_that_is_there_is_replaced_only_by_force_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    write(file, "first", force=False)
    assert why_not_writable(file, force=True) is None
    assert "is there already" in (why_not_writable(file, force=False) or "")
    with pytest.raises(Misconfigured, match="is there already"):
        write(file, "second", force=False)
    assert file.read_text() == "first"
    write(file, "second", force=True)
    assert file.read_text() == "second"
    assert list(tmp_path.iterdir()) == [file]
    assert not stat.S_IMODE(file.stat().st_mode) & stat.S_IXUSR


def test_a_place_that_cannot_be_written_to_is_found_out_before(tmp_path: Path) -> None:
    assert "is a directory" in (why_not_writable(tmp_path, force=True) or "")
    assert "is no directory" in (why_not_writable(tmp_path / "none" / "a", force=True) or "")
    with pytest.raises(Misconfigured, match="cannot be written"):
        write(tmp_path / "none" / "a", "", force=True)

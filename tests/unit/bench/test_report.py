"""The tables that are generated from the benchmark's results, and their insertion into the documentation."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))  # run by path, so they import by bare name

import report

RESULTS: dict[str, Any] = {
    "about": {"processor": "one | other", "rounds": 3},
    "ratios": {"limit_lite0": 0.9, "cpu_lite0": 0.5, "peer_dramatiq_savedmodel": 2.0},
    "throughput": {
        "autotag_lite0": {
            "images_per_s": {"median": 200.0, "low": 190.0, "high": 210.0, "rounds": 3},
            "cpu_ms": {"parent": 1.0, "broker": 0.5},
            "own_cpu_ms": 1.0,
            "foreign_share": 0.02,
        },
        "celery_tensorflow": {"failed": "no results"},
    },
    "alternatives": [
        {"what": "decoder", "on": "web", "who": "pyvips", "wall_ms": 1.5, "cpu_ms": 1.4, "note": "near"},
        {"what": "decoder", "on": "-", "who": "PyTurboJPEG", "wall_ms": None, "cpu_ms": None, "note": "not here"},
    ],
}


def by_key(results: dict[str, Any]) -> dict[str, report.Table]:
    return {table.key: table for table in report.tables(results)}


def test_only_what_was_measured_becomes_a_table() -> None:
    assert set(by_key(RESULTS)) == {"about", "ratios", "throughput", "alternatives"}
    assert report.tables({}) == []


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [
        ("limit_lite0", 0.85, True),
        ("limit_lite0", 0.84, False),
        ("p50_idle", 1.5, False),
        ("peer_dramatiq_litert", 1.0, False),
        ("peer_dramatiq_savedmodel", 0.1, None),
    ],
)
def test_a_ratio_is_compared_with_its_goal(name: str, value: float, met: bool | None) -> None:
    assert report.meets(name, value) is met


def test_the_table_of_ratios_says_which_goals_are_met() -> None:
    rows = {row[0]: row[1:] for row in by_key(RESULTS)["ratios"].rows}
    assert rows["limit_lite0"] == ("0.90", ">= 0.85", "yes")
    assert rows["cpu_lite0"] == ("0.50", ">= 0.95", "no")
    assert rows["peer_dramatiq_savedmodel"] == ("2.00", "", "")


def test_a_contestant_that_failed_is_in_the_table_and_says_why() -> None:
    rows = {row[0]: row for row in by_key(RESULTS)["throughput"].rows}
    assert rows["celery_tensorflow"][1:3] == ("failed", "no results")
    assert rows["autotag_lite0"][1] == "200.0 (190.0 to 210.0)"


def test_every_row_has_as_many_cells_as_there_are_columns() -> None:
    for table in report.tables(RESULTS):
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.key


def test_a_bar_in_a_cell_does_not_end_the_cell() -> None:
    assert "| processor | one \\| other |" in report.markdown(by_key(RESULTS)["about"])


def test_blocks_of_the_documentation_are_filled_and_the_rest_is_unchanged() -> None:
    text = (
        "Before.\n<!-- bench: ratios -->\nold\n<!-- bench end -->\nAfter.\n<!-- bench: growth -->\n<!-- bench end -->\n"
    )
    filled = report.with_tables(text, RESULTS)
    assert "old" not in filled
    assert "| limit_lite0 | 0.90 |" in filled
    assert filled.startswith("Before.\n")
    assert "After." in filled
    assert "Not measured yet" in filled
    assert report.with_tables(filled, RESULTS) == filled


def test_a_block_of_an_unknown_key_is_refused() -> None:
    with pytest.raises(KeyError):
        report.with_tables("<!-- bench: nonsense -->\n<!-- bench end -->\n", RESULTS)


def test_the_documentation_has_a_block_for_every_table_and_no_other() -> None:
    keys = re.findall(r"<!-- bench: ([a-z0-9_]+) -->", report.DOCS.read_text())
    known = {table.key for table in (make({}) for make in report._MAKERS) if table is not None}
    assert sorted(keys) == sorted(known)


def test_the_documentation_shows_every_plot() -> None:
    shown = set(re.findall(r"\((images/performance-[a-z]+\.png)\)", report.DOCS.read_text()))
    assert shown == {f"images/{report.PICTURE_PREFIX}{name}.png" for name in report._PLOTS}


def test_without_results_the_command_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "results.json")]) == 1
    assert "make bench" in capsys.readouterr().err


def test_earlier_results_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(RESULTS))
    assert report.main([str(file)]) == 0
    assert "limit_lite0" in capsys.readouterr().out

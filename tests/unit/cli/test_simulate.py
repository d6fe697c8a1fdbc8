"""`autotag simulate` answers what the relaunch rule would have done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.cli.app import app


@pytest.fixture
def crashes(tmp_path: Path) -> Path:
    return tmp_path / "crashes.csv"


def simulate(crashes: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["simulate", str(crashes), *options])
    return result.exit_code, result.output


def test_the_sixth_crash_within_a_minute_would_have_disabled_the_model(crashes: Path) -> None:
    crashes.write_text("time,why\n" + "".join(f"{10 * number},SIGKILL\n" for number in range(7)))

    exit_code, output = simulate(crashes, "--relaunches", "5", "--interval", "60")

    assert exit_code == 1
    assert "disabled at crash 6 of 7, 50" in output


def test_crashes_that_are_far_enough_apart_are_forgotten(crashes: Path) -> None:
    # A crash exactly one interval old is forgotten, so there are never more than five.
    crashes.write_text("".join(f"2026-11-23T10:{minute:02}:00+00:00\n" for minute in range(10)))

    exit_code, output = simulate(crashes, "--relaunches", "5", "--interval", "300", "--json")

    assert exit_code == 0
    assert json.loads(output) == {
        "relaunches": 5, "interval_s": 300.0, "crashes": 10, "answers_assumed": True,
        "disabled": False, "at_crash": None, "at": None,
    }  # fmt: skip


def test_hangs_that_last_longer_than_the_interval_allows_disable_a_model_that_answers_nothing(crashes: Path) -> None:
    crashes.write_text("".join(f"{30 * number},silent_while_busy\n" for number in range(1, 9)))

    exit_code, output = simulate(crashes, "--relaunches", "5", "--interval", "60", "--no-answers")
    assert (exit_code, "disabled at crash 6 of 8, 180" in output) == (1, True)

    exit_code, output = simulate(crashes, "--relaunches", "5", "--interval", "60")
    assert exit_code == 0
    assert "--no-answers" in output, "what was assumed is said"


def test_a_line_that_says_answered_is_no_crash_and_lets_earlier_ones_be_forgotten(crashes: Path) -> None:
    lines = [f"{30 * number},silent_while_busy" for number in range(1, 9)]
    lines.insert(4, "121,Answered")
    crashes.write_text("\n".join(["time,what", *lines]))

    exit_code, output = simulate(crashes, "--relaunches", "5", "--interval", "60", "--json")

    # At the sixth, at 180 s, those of 30 s to 120 s have been answered after and are an interval old.
    assert exit_code == 0
    assert json.loads(output) | {"interval_s": 60.0} == {
        "relaunches": 5, "interval_s": 60.0, "crashes": 8, "answers_assumed": False,
        "disabled": False, "at_crash": None, "at": None,
    }  # fmt: skip


@pytest.mark.parametrize(("text", "line"), [("1\nsoon\n", "line 2"), ("5\n4\n", "line 2"), ("time\n1\nx\n", "line 3")])
def test_a_file_that_is_no_list_of_times_is_refused_by_line(crashes: Path, text: str, line: str) -> None:
    crashes.write_text(text)
    exit_code, output = simulate(crashes)
    assert exit_code == 2
    assert line in output

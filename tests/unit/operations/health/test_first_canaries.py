"""What own models said first outlives the process, and a file that cannot be used costs only that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from worker.operations.health.first_canaries import FirstCanaries
from worker.tagging.canary.expected import ExpectedTag


def test_what_was_kept_is_known_to_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "state" / "canary.json"
    first = FirstCanaries(file)
    assert first.get("own@1") is None
    first.keep({"own@1": ExpectedTag("Katze", 0.66, 0.76), "detector@1": ExpectedTag(None, 0.0, 0.05)})
    later = FirstCanaries(file)
    assert later.get("own@1") == ExpectedTag("Katze", 0.66, 0.76)
    assert later.get("detector@1") == ExpectedTag(None, 0.0, 0.05)
    assert later.get("own@2") is None
    assert [each.name for each in file.parent.iterdir()] == ["canary.json"]


def test_what_another_worker_has_written_meanwhile_stays(tmp_path: Path) -> None:
    one, other = (FirstCanaries(tmp_path / "canary.json") for _ in range(2))
    assert one.get("a@1") is other.get("a@1") is None
    one.keep({"a@1": ExpectedTag("x", 0.45, 0.55)})
    other.keep({"b@1": ExpectedTag("y", 0.45, 0.55)})
    assert FirstCanaries(tmp_path / "canary.json").get("a@1") == ExpectedTag("x", 0.45, 0.55)


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "canary.json"
    first = FirstCanaries(file)
    for number in range(105):
        first.keep({f"own@{number}": ExpectedTag("x", 0.45, 0.55)})
    assert len(json.loads(file.read_text())) == 100
    assert FirstCanaries(file).get("own@104") is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "7",
        '{"a": 1}',
        '{"a": {"term": 3, "low": 0.5, "high": 0.6}}',
        '{"a": {"term": "x", "low": 0.5, "high": 7}}',
        '{"a": {"term": "x", "low": 0.6, "high": 0.5}}',
        '{"a": {"term": "x", "low": NaN, "high": 0.5}}',
    ],
)
def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "canary.json"
    file.write_text(text)
    with capture_logs() as logs:
        assert FirstCanaries(file).get("a") is None
    assert [each["event"] for each in logs] == ["what the canary expects cannot be read"]


def test_without_a_place_to_write_it_is_known_for_as_long_as_the_process(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a directory")
    first = FirstCanaries(tmp_path / "state" / "canary.json")
    with capture_logs() as logs:
        first.keep({"own@1": ExpectedTag("Katze", 0.66, 0.76)})
    assert first.get("own@1") == ExpectedTag("Katze", 0.66, 0.76)
    assert logs[-1]["event"] == "what the canary expects of a model is lost at the end"

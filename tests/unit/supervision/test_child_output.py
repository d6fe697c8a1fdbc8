"""The output of children is logged bounded and printable, and never blocks a child."""

from __future__ import annotations

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker.supervision.child_output import KEPT_LINES, MAXIMUM_LINE_CHARACTERS, MAXIMUM_LINES_PER_SECOND, ChildOutput


def lines_of(logs: list[Any]) -> list[str]:
    return [line["line"] for line in logs if line["event"] == "child says"]


def test_lines_are_logged_whole_however_they_arrive() -> None:
    output = ChildOutput("model-1", 7)
    with capture_logs() as logs:
        for piece in (b"one\ntw", b"o\n\n  \nth", b"ree"):
            output.feed(piece, 0.0)
        output.finish(0.0)
    assert lines_of(logs) == ["one", "two", "three"]
    assert (logs[0]["child"], logs[0]["pid"]) == ("model-1", 7)
    assert output.last_lines == ["one", "two", "three"]


def test_control_characters_do_not_reach_a_terminal() -> None:
    output = ChildOutput("model-1", 7)
    with capture_logs() as logs:
        output.feed(b"\x1b]0;title\x07 caf\xc3\xa9 \xff\n", 0.0)
    assert lines_of(logs) == ["\\x1b]0;title\\x07 café \ufffd"]


def test_an_endless_line_is_truncated() -> None:
    output = ChildOutput("model-1", 7)
    with capture_logs() as logs:
        for _ in range(100):
            output.feed(b"x" * 65536, 0.0)
        output.feed(b"\nnext\n", 0.0)
    assert [len(line) for line in lines_of(logs)] == [MAXIMUM_LINE_CHARACTERS, 4]


def test_a_flood_is_left_out_counted_and_ends_with_its_last_lines() -> None:
    output = ChildOutput("model-1", 7)
    with capture_logs() as logs:
        output.feed(b"".join(b"line %d\n" % number for number in range(500)), 0.0)
        output.feed(b"next second\n", 1.0)
    assert len(lines_of(logs)) == MAXIMUM_LINES_PER_SECOND + 1
    assert [line["lines_left_out"] for line in logs if "lines_left_out" in line] == [500 - MAXIMUM_LINES_PER_SECOND]
    assert output.last_lines[-2:] == ["line 499", "next second"]
    assert len(output.last_lines) == KEPT_LINES


@pytest.mark.parametrize("flood", [b"\n" * 65536, b"a\n" * 32768, b"x" * 65536])
def test_a_flood_costs_the_parent_little(flood: bytes) -> None:
    output = ChildOutput("model-1", 7)
    with capture_logs():
        output.feed(flood, 0.0)
        started_s = time.process_time()
        for _ in range(100):
            output.feed(flood, 0.5)
    assert time.process_time() - started_s < 2.0, "6.5 MB"

"""The log: one JSON object per line, with the trace of the event it is about, and no secrets."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from worker.images.content import Content
from worker.operations import logs, tracing

MARKER = "marker-0b5e-never-to-be-seen"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_without_empty_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger("worker.test").info("event ended", asset_id="a\nb", reason=None, seconds=0.5)
    logging.getLogger("some.library").warning("message %s", "one")
    first, second = lines(capsys)
    assert (first["event"], first["asset_id"], first["seconds"], first["level"]) == ("event ended", "a\nb", 0.5, "info")
    assert "reason" not in first
    assert (second["event"], second["logger"]) == ("message one", "some.library")


def test_lines_about_an_event_carry_its_trace_and_others_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    log = structlog.get_logger("worker.test")
    with tracing.start_trace() as trace:
        trace.join(TRACEPARENT, None, 0.0, {})
        log.info("inside")
    log.info("outside")
    inside, outside = lines(capsys)
    assert inside["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert inside["span_id"] == "b7ad6b7169203331"
    assert "trace_id" not in outside


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values_of_variables(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    logs.configure("debug", form)

    def breaks(key: str, image: bytes) -> None:
        with Content.from_bytes(image, "message body") as content:
            raise RuntimeError(f"it broke with {SecretStr(key)} over {content!r}")

    try:
        breaks(MARKER, MARKER.encode())
    except RuntimeError:
        structlog.get_logger("worker.test").exception("unexpected error")
    output = capsys.readouterr().err
    assert "it broke" in output
    assert MARKER not in output


@pytest.mark.parametrize("library", ["httpx", "httpcore", "hpack", "h2", "uvicorn.error", "pika"])
def test_libraries_that_log_requests_and_headers_are_silenced(capsys: pytest.CaptureFixture[str], library: str) -> None:
    logs.configure("debug", "json")
    logging.getLogger(library).info("authorization: %s", MARKER)
    assert capsys.readouterr().err == ""


def test_a_line_that_cannot_be_written_is_dropped_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        logs.configure("info", "json")
        structlog.get_logger("worker.test").info("not read")
        with contextlib.suppress(BrokenPipeError):
            broken.close()


HOSTILE = "cup\x1b]0;owned\x07\x9b31m\u202egpj.exe\u2028\ud800"


def test_the_console_shows_what_others_wrote_without_obeying_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    log = structlog.get_logger("worker.test")
    log.info(HOSTILE, asset_id=HOSTILE, names=[HOSTILE], number=3, error=ValueError(HOSTILE))
    logging.getLogger("some.library").warning("message of %s", HOSTILE)
    error = RuntimeError(f"{HOSTILE}\n2026-01-01T00:00:00Z [info     ] all is well")
    log.error("unexpected error", exc_info=error, stack_info=True)
    output = capsys.readouterr().err
    assert [each for each in output.replace("\n", "") if not each.isprintable()] == []
    assert output.count("cup") >= 6
    assert output.count("u202egpj.exe") == output.count("cup")
    assert "\n2026-01-01" not in output, "a message with a line break has not made a line of its own"
    assert "asset_id=cup\\x1b]0;owned\\x07\\x9b31m\\u202egpj.exe\\u2028\\ud800" in output


def test_json_lines_escape_it_and_keep_the_value(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger("worker.test").info("event ended", asset_id=f"{HOSTILE}\x7f")
    output = capsys.readouterr().err
    assert [each for each in output.rstrip("\n") if not each.isprintable()] == []
    assert json.loads(output)["asset_id"] == f"{HOSTILE}\x7f"

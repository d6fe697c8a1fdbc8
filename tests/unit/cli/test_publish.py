"""`autotag publish` with an invalid command line: the error comes before it connects."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.cli.app import app
from worker.cli.exit_codes import ExitCode


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No broker listens here: a command that connects ends with UNREACHABLE."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOTAG_AMQP__URL", "amqp://127.0.0.1:9/")
    Path("photo.jpg").write_bytes(b"a photograph")


def publish(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["publish", *arguments])
    return result.exit_code, result.stderr


def test_a_good_command_line_connects() -> None:
    assert publish("photo.jpg")[0] == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("--lane", "fast", "live"), ("--instance", "two words", "letters"), ("--by", "post", "inline")],
)
def test_an_invalid_value_is_refused_with_what_is_allowed(option: str, value: str, allowed: str) -> None:
    status, output = publish("photo.jpg", option, value)
    assert status == ExitCode.USAGE
    assert option in output
    assert allowed in output


def test_with_no_file_that_can_be_read_nothing_is_published() -> None:
    status, output = publish("missing.jpg")
    assert status == ExitCode.FAILED
    assert "missing.jpg: cannot be read: No such file or directory" in output

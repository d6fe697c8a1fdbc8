"""`autotag tag`: a file's name is shown, and commands no terminal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import built

NAME = "cup\x1b]0;owned\x07\x9b31m\u202egpj.exe\n\udcff"
"""A title for the window, red text, a name that is shown from right to left, a line break, a byte that is no UTF-8."""
SHOWN = r"cup\x1b]0;owned\x07\x9b31m\u202egpj.exe␤\udcff"


@pytest.fixture
def folder(tmp_path: Path, photographs: dict[str, Path]) -> Path:
    shutil.copy(photographs["coffee"], tmp_path / f"{NAME}.jpg")
    (tmp_path / f"{NAME}.txt").write_bytes(b"no image")
    return tmp_path


def tag(folder: Path, *options: str) -> tuple[str, str]:
    built("efficientnet-lite0")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    environment |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
    files = (f"{NAME}.jpg", f"{NAME}.txt")
    command = (sys.executable, "-m", "worker", "tag", "--model", "efficientnet-lite0", *options, *files)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def unprintable(text: str) -> list[str]:
    return [each for each in text.replace("\n", "") if not each.isprintable()]


def test_a_hostile_file_name_is_shown_as_escapes(folder: Path) -> None:
    output, errors = tag(folder)
    assert unprintable(output + errors) == []
    assert output.startswith(f"{SHOWN}.jpg: ")
    assert "espresso" in output
    note, error = errors.splitlines()
    assert "the local model is switched off" in note, "for events"
    assert error.startswith(f"{SHOWN}.txt: ")
    assert output.count("\n") == 1


def test_json_has_the_same_name_escaped(folder: Path) -> None:
    output, _ = tag(folder, "--json")
    assert unprintable(output) == []
    assert [json.loads(line)["file"] for line in output.splitlines()] == [f"{NAME}.jpg", f"{NAME}.txt"]

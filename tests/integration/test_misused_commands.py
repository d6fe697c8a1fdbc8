"""No command that is misused ends with a traceback: it names in a line what it cannot use, by its exit status too.

The commands and their parameters are found in the parser, so that one that is added later is tried too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.forked_commands import commands, run_all

WRONG_FILES = {
    "noise": bytes(range(256)) * 16,
    "empty": b"",
    "nul.csv": b"file,label\na\0b,1\n",
    "long.csv": b'file,label\n"' + b"x" * 300_000 + b'",1\n',
    "deep.jsonl": b"[" * 100_000 + b"\n",
    "quote.csv": b'file,label\n"a\n',
}
NO_FILES = ("missing/file", "folder", "noise/below", "/dev/null")

WRONG_VALUES = ("nan", "inf", "-1", "1e400", "folder", "")

OF_EVERY_COMMAND = {"--config", "--secrets-dir", "--env-file"}
"""Tried with one of them."""

FIRST: dict[tuple[str, ...], tuple[str, ...]] = {("run",): ("--check-settings",), ("bench",): ("--images", "folder")}
"""What keeps a command from doing its long work."""

NEEDED: dict[tuple[str, ...], str] = {("chaos",): "folder", ("model", "build"): "nonesuch"}
"""The argument of a command that is given a wrong option; of others a file that is empty."""

OVERWRITING = {("config", "reference")}
"""Write over the file that they are given: tried last, so that the others are given what WRONG_FILES holds."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    for name, content in WRONG_FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    kept |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
    return kept | {
        "AUTOTAG_AMQP__URL": "amqp://127.0.0.1:1/",
        "AUTOTAG_STATE_DIR": str(folder / "state"),
        "AUTOTAG_CONTROL_SOCKET": str(folder / "none.sock"),
    }


def wrong_arguments() -> Iterator[tuple[str, ...]]:
    for words, command in sorted(commands().items(), key=lambda each: each[0] in OVERWRITING):
        first = FIRST.get(words, ())
        for parameter in command.params:
            if not any(option.startswith("-") for option in parameter.opts):
                for file in (*WRONG_FILES, *NO_FILES):
                    yield (*words, *first, file)


def wrong_options() -> Iterator[tuple[str, ...]]:
    for words, command in commands().items():
        first = FIRST.get(words, ())
        takes_one = any(not option.startswith("-") for each in command.params for option in each.opts)
        argument = (NEEDED.get(words, "empty"),) if takes_one else ()
        for parameter in command.params:
            option = next((each for each in parameter.opts if each.startswith("--")), None)
            of_all = words != ("config", "show") and option in OF_EVERY_COMMAND
            if option is not None and not parameter.is_flag and not of_all:
                for value in WRONG_VALUES:
                    yield (*words, *first, option, value, *argument)


@pytest.mark.parametrize("misuses", [wrong_arguments, wrong_options], ids=["arguments", "options"])
def test_what_a_command_cannot_use_is_no_traceback(
    folder: Path, misuses: Callable[[], Iterator[tuple[str, ...]]]
) -> None:
    lines = list(misuses())
    assert len(lines) > 100
    for done in run_all(lines, folder, environment(folder)):
        assert "Traceback" not in done.output + done.errors, (done.arguments, done.errors[-2000:])
        assert done.status in {0, 1, 2, 3, 4, 5}, done
        assert done.status == 0 or done.errors or done.output, "it is said what was wrong"


def test_a_full_disk_is_a_line(folder: Path) -> None:
    lines = [("config", "reference", "/dev/full"), ("config", "reference", "missing/file")]
    full, missing = run_all(lines, folder, environment(folder))
    assert (full.status, full.errors) == (1, "autotag: a file cannot be read or written: No space left on device\n")
    assert (missing.status, missing.errors) == (1, "autotag: missing/file: No such file or directory\n")

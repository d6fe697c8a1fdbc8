"""The commands as programs: in any locale, with streams that are closed, full or read no further."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.cli.exit_codes import ExitCode

AUTOTAG = [sys.executable, "-m", "worker"]
POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"AUTOTAG_STATE_DIR": str(tmp_path / "state"), "AUTOTAG_CACHE_DIR": str(tmp_path / "cache")} | more


def shell(command: str, tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-c", command, "bash", *AUTOTAG],
        env=environment(tmp_path, **more),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["schema", "config show", "config show --json", "--help"])
def test_a_full_disk_is_reported_in_one_line_and_by_the_status(tmp_path: Path, command: str) -> None:
    done = shell(f'"$@" {command} > /dev/full', tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == "autotag: the output cannot be written: No space left on device\n"


def test_a_reader_that_reads_no_further_is_no_error_to_report(tmp_path: Path) -> None:
    done = shell('"$@" schema | true; "$@" config show | head -1 > /dev/null', tmp_path)
    assert done.stderr == ""


def test_closed_streams_are_opened_so_that_no_other_file_takes_their_place(tmp_path: Path) -> None:
    done = shell('"$@" --version <&- >&-', tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert shell('"$@" --version 2>&-', tmp_path).returncode == 0


def test_a_file_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    done = shell('"$@" config reference nowhere/settings.md', tmp_path)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == "autotag: nowhere/settings.md: No such file or directory\n"


@pytest.mark.parametrize("locale", [POSIX, {"LC_ALL": "C"}, {}], ids=["POSIX without UTF-8", "C", "none"])
def test_names_are_the_same_bytes_in_every_locale(tmp_path: Path, locale: dict[str, str]) -> None:
    # Given a settings file, which names a directory, whose own names are beyond ASCII
    folder = tmp_path / "Käse 猫"
    folder.mkdir()
    settings = folder / "é.toml"
    settings.write_text(f'sources.path_roots = ["{folder}"]', "utf-8")
    # When they are shown
    done = subprocess.run(
        [*AUTOTAG, "--config", str(settings), "config", "show", "--json"],
        env=environment(tmp_path, **locale),
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    # Then it was found, and the output is UTF-8
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["sources.path_roots"]["value"] == [str(folder)]


def test_a_name_that_is_not_utf_8_comes_back_from_json_as_the_same_bytes(tmp_path: Path) -> None:
    name = b"Pr\xfcfung.toml"
    (tmp_path / os.fsdecode(name)).write_text("amqp.prefetch = 9", "utf-8")
    done = subprocess.run(
        [*map(os.fsencode, AUTOTAG), b"-c", name, b"config", b"show", b"--json"],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert os.fsencode(json.loads(done.stdout.decode("utf-8"))["config_file"]) == name

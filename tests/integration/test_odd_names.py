"""Names are bytes: a file with an odd one is tagged and published as any other, and stops none of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import RunningService, running_service

NAMES = (
    b"Pr\xfcfung.jpg",
    "NFC \u00fc.jpg".encode(),
    "NFD u\u0308.jpg".encode(),
    b"line\nbreak.jpg",
    b"\x1b[2J\x1b]0;owned\x07.jpg",
    b"-n.jpg",
    b"x" * 251 + b".jpg",
    "猫 \u202egpj.exe.jpg".encode(),
)
POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"test-odd-names-{os.getpid()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, Path]) -> Path:
    folder = tmp_path_factory.mktemp("names")
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes(photographs["coffee"].read_bytes())
    deep = folder.joinpath(*["d" * 250] * 15)  # 4,000 bytes
    here = os.open(folder, os.O_RDONLY)
    for part in deep.relative_to(folder).parts:
        os.mkdir(part, dir_fd=here)
        below = os.open(part, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    image = os.open("deep.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(image, photographs["coffee"].read_bytes())
    os.close(image)
    os.close(here)
    return folder


@pytest.fixture(scope="module")
def service(
    broker: str, prefix: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    roots = json.dumps([str(folder)])
    with pytest.MonkeyPatch.context() as patch:  # a locale without UTF-8, as in many containers
        for name, value in POSIX.items():
            patch.setenv(name, value)
        with running_service(
            broker, prefix, tmp_path_factory.mktemp("service"), SOURCES__PATH_ROOTS=roots, RETRY__DELAYS_S="1"
        ) as it:
            yield it.ready(within_s=120)
            assert it.stop() == 0


def autotag(folder: Path, *words: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    kept |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
    command = [sys.executable, "-m", "worker", *words]
    return subprocess.run(
        [os.fsencode(word) for word in command],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        timeout=120,
        check=False,
    )


def lines(done: subprocess.CompletedProcess[bytes]) -> dict[bytes, dict[str, object]]:
    found = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    return {os.fsencode(each["file"]): each for each in found}


@pytest.mark.parametrize("locale", [POSIX, {"LC_ALL": "C.UTF-8"}], ids=["POSIX", "UTF-8"])
def test_files_with_odd_names_are_tagged_and_none_stops_the_others(folder: Path, locale: dict[str, str]) -> None:
    deep = os.path.join(*["d" * 250] * 15, "deep.jpg").encode()
    given = [b"./" + name for name in NAMES] + [deep, b"gone-\xff.jpg", b"./" + b"y" * 300]
    done = autotag(folder, "tag", "--json", "--model", "efficientnet-lite0", *given, **locale)

    assert done.returncode == 1
    answers = lines(done)
    expected = {os.path.normpath(name) for name in given}
    assert {os.path.normpath(name) for name in answers} == expected, done.stderr
    tagged = {os.path.normpath(name) for name, answer in answers.items() if answer["status"] == "tagged"}
    assert tagged == expected - {b"gone-\xff.jpg", b"y" * 300}
    ids = [str(answer["asset_id"]) for answer in answers.values()]
    assert all(each.isprintable() and len(each) <= 1024 for each in ids)
    assert b"Traceback" not in done.stderr


def test_published_inline_every_file_is_tagged_under_an_id_that_was_made(folder: Path, service: RunningService) -> None:
    done = autotag(folder, "publish", "--wait", "--json", "--", *NAMES, **(service.environment | POSIX))

    assert done.returncode == 0, done.stderr
    answers = lines(done)
    assert set(answers) == set(NAMES)
    assert {answer["status"] for answer in answers.values()} == {"tagged"}
    assert all(answer["asset_id"] == answer["event_id"] for answer in answers.values())


def test_published_by_path_a_name_that_no_event_can_hold_is_refused_at_once(
    folder: Path, service: RunningService
) -> None:
    done = autotag(folder, "publish", "--by", "path", "--wait", "--json", "--", *NAMES, **service.environment)

    assert done.returncode == 1
    impossible = {NAMES[0], NAMES[3], NAMES[4]}
    assert {name: answer["status"] for name, answer in lines(done).items()} == dict.fromkeys(
        set(NAMES) - impossible, "tagged"
    )
    reported = done.stderr.decode().splitlines()
    assert len(reported) == len(impossible)
    assert all("cannot be published by its path: its name" in line and line.isprintable() for line in reported)

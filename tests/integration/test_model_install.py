"""Installing a downloadable model from a server on this machine, with a small graph in Inception5h's convention."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.support.models import run_python, score_elsewhere
from worker.cli.exit_codes import ExitCode
from worker.errors import Misconfigured
from worker.models import catalogue, download
from worker.models.catalogue import DOWNLOADS, Download, find_package
from worker.models.install import install, install_download
from worker.models.manifest import ModelMissing, ModelPackage
from worker.models.staging import ModelProgress

ROOT = Path(__file__).parents[2]

GRAPH, LABELS = "tensorflow_inception_graph.pb", "imagenet_comp_graph_label_strings.txt"


@dataclass
class Server:
    """Serves one file, with ranges; its fields make it misbehave. `requested` has the `Range` of each request."""

    data: bytes = b""
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    requested: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requested.append(wanted)
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            request.send_error(status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if start >= len(self.data) and start:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.data)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        request.send_header("Content-Length", str(len(self.data) - start))
        request.end_headers()
        end = start + self.cut_after.pop(0) if self.cut_after else len(self.data)
        request.wfile.write(self.data[start:end])
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            serving.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        serving.url = f"http://127.0.0.1:{http.server_port}/inception5h.zip"
        yield serving
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSES_S", (0.0,) * 5)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("graph") / GRAPH
    run_python("tests.support.small_models", "graph_def", path)
    return path.read_bytes()


def label_lines() -> list[str]:
    lines = ["dummy", *(f"label {number}" for number in range(1, 1001))]
    lines[10], lines[20], lines[30] = "red thing", "green thing", "blue thing"
    return lines


def zipped(graph: bytes, **others: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {GRAPH: graph, LABELS: "\n".join(label_lines()).encode(), **others}.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def small(graph: bytes, server: Server) -> Download:
    """The catalogue's Inception5h, with the digests of this test's files instead of the real ones."""
    server.data = zipped(graph, **{"../../evil": b"", "LICENSE": b"words"})
    git = hashlib.sha1(f"blob {len(graph)}\0".encode() + graph, usedforsecurity=False).hexdigest()
    return replace(
        DOWNLOADS["inception5h"],
        url=server.url,
        graph_digest=f"git-blob-sha1:{git}",
        labels_digest=f"sha256:{hashlib.sha256(chr(10).join(label_lines()).encode()).hexdigest()}",
    )


def test_it_is_fetched_checked_and_scores(small: Download, tmp_path: Path) -> None:
    reported: list[ModelProgress] = []
    package = install_download(small, tmp_path, on_progress=reported.append)

    assert package == find_package("inception5h", tmp_path)
    package.verify()
    assert reported[-2].done == reported[-2].total > 0
    assert sorted(path.name for path in package.directory.iterdir()) == [LABELS, "manifest.json", GRAPH]
    assert [path.name for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"] == ["inception5h"]

    colours = np.zeros((3, 224, 224, 3), np.uint8)
    for channel in range(3):
        colours[channel, :, :, channel] = 255
    found = score_elsewhere(package, colours, tmp_path)
    assert found["best"] == ["red thing", "green thing", "blue thing"]
    assert found["scores"].shape == (3, 1001)
    assert not found["scores"][:, 0].any(), "`dummy` was not ignored"


def test_it_resumes_where_the_connection_broke(small: Download, server: Server, tmp_path: Path) -> None:
    server.cut_after = [1000, 500]
    install_download(small, tmp_path).verify()
    assert server.requested == [None, "bytes=1000-", "bytes=1500-"]


def test_a_later_run_resumes_where_the_first_gave_up(small: Download, server: Server, tmp_path: Path) -> None:
    server.cut_after, server.statuses = [1000], [200, 503, 503, 503, 503]
    with pytest.raises(Misconfigured, match=r"answered 503, after 5 attempts.*run the same again") as caught:
        install_download(small, tmp_path)
    assert caught.value.reason == "download_failed"
    server.requested.clear()
    install_download(small, tmp_path).verify()
    assert server.requested == ["bytes=1000-"]


def test_a_server_without_ranges_is_asked_for_all_of_it(small: Download, server: Server, tmp_path: Path) -> None:
    server.cut_after, server.ranges = [1000], False
    install_download(small, tmp_path).verify()


def test_the_beginning_of_another_file_is_discarded(small: Download, server: Server, tmp_path: Path) -> None:
    server.cut_after, server.statuses = [1000], [200, 503, 503, 503, 503]
    with pytest.raises(Misconfigured):
        install_download(small, tmp_path)
    [part] = (tmp_path / "models").glob("*.part")
    part.write_bytes(b"x" * 1000)
    install_download(small, tmp_path).verify()


def test_a_complete_part_is_not_fetched_again(small: Download, server: Server, tmp_path: Path) -> None:
    server.cut_after, server.statuses = [len(server.data) - 1], [200, 503, 503, 503, 503]
    with pytest.raises(Misconfigured):
        install_download(small, tmp_path)
    [part] = (tmp_path / "models").glob("*.part")
    part.write_bytes(server.data)
    install_download(small, tmp_path).verify()


def test_it_is_not_fetched_twice(small: Download, server: Server, tmp_path: Path) -> None:
    first = install_download(small, tmp_path)
    server.requested.clear()
    assert install_download(small, tmp_path) == first
    assert server.requested == []


@pytest.mark.parametrize("field_name", ["graph_digest", "labels_digest"])
def test_a_file_of_another_hash_is_refused_and_nothing_is_kept(
    small: Download, tmp_path: Path, field_name: str
) -> None:
    changed = replace(small, **{field_name: "sha256:" + "0" * 64})
    with pytest.raises(Misconfigured, match="expected " + "0" * 64) as caught:
        install_download(changed, tmp_path)
    assert caught.value.reason == "download_refused"
    assert [path.name for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"] == []


def test_an_archive_can_be_pinned_too(small: Download, server: Server, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="expected " + "1" * 64):
        install_download(small, tmp_path, sha256="1" * 64)
    install_download(small, tmp_path, sha256=hashlib.sha256(server.data).hexdigest()).verify()


def test_a_mirror_can_take_the_catalogues_place(
    small: Download, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue.DOWNLOADS, "inception5h", replace(small, url="http://127.0.0.1:9/nowhere.zip"))
    assert isinstance(install("inception5h", tmp_path, url=server.url), ModelPackage)


@pytest.mark.parametrize("data", [b"<html>not found</html>", b"", zipped(b"")[:-30]])
def test_what_is_no_archive_is_refused(small: Download, server: Server, tmp_path: Path, data: bytes) -> None:
    server.data = data
    with pytest.raises(Misconfigured, match="not a readable zip"):
        install_download(small, tmp_path)


def test_an_archive_without_the_file_is_refused(small: Download, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"holds no other\.pb"):
        install_download(replace(small, graph_file="other.pb"), tmp_path)


def test_a_refusal_of_the_server_is_reported_without_secrets(small: Download, server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    address = server.url.replace("http://", "http://user:hunter2@") + "?key=hunter3"
    with pytest.raises(Misconfigured, match="answered 404") as caught:
        install_download(small, tmp_path, url=address)
    assert "hunter" not in str(caught.value)
    assert len(server.requested) == 1


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="give one of inception5h"):
        install("inception6", tmp_path)


def install_by_command(cache_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", "model", "install", "inception5h", *arguments],
        cwd=cache_dir,
        env=os.environ | {"AUTOTAG_CACHE_DIR": str(cache_dir), "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("by", ["option", "setting"])
def test_a_program_from_an_address_is_refused_unless_allowed(server: Server, tmp_path: Path, by: str) -> None:
    server.data = zipped(b"not the graph that is pinned")
    address = server.url.replace("http://", "http://user:hunter2@")
    options = ["--url", address] if by == "option" else []
    environment = {} if by == "option" else {"AUTOTAG_MODELS__INCEPTION5H__URL": address}

    refused = install_by_command(tmp_path, *options, **environment)
    assert refused.returncode == ExitCode.MODEL
    assert "is a graph_def, a program" in (message := " ".join(refused.stderr.split()))
    assert "add --allow-program" in message
    assert "hunter2" not in message
    assert server.requested == []

    allowed = install_by_command(tmp_path, *options, "--allow-program", **environment)
    assert server.requested == [None]
    pinned = "expected b71afb3c1ec3172ecd406a5d8b7bbfd90c1f7756"
    assert pinned in allowed.stderr.replace("\n", ""), "the files are pinned all the same"

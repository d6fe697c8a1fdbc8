"""S3 from end to end: objects of a real store are tagged, by a listing of the bucket or by the store's own messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pika
import pytest

from tests.support.connector import RunningConnector
from tests.support.polling import until
from tests.support.s3_stores import KEYS, S3Store, seaweedfs
from tests.systems.ceph import Ceph, ceph
from tests.systems.conftest import Table
from tests.systems.connecting import connected
from tests.systems.programs import weed

pytestmark = pytest.mark.timeout(1200)

BUCKET = "pictures"
_SOURCE = """
[sources.s3.store]
endpoint = "{url}"
access_key = "{access_key}"
secret_key = "{secret_key}"
buckets = ["{bucket}"]

[connect.store]
s3 = "store"
{poll}

[connect.store.target]
enabled = true
kind = "s3"
accept = "context.s3.bucket == '{bucket}'"
"""
_POLL = """
[connect.store.poll]
enabled = true
kind = "s3"
bucket = "pictures"
accept = "ends_with(key, '.jpg')"
every_s = 2
"""


def configuration(store: S3Store, poll: str = "") -> str:
    keys = {"access_key": KEYS.access_key, "secret_key": KEYS.secret_key}
    return _SOURCE.format(url=store.url, bucket=BUCKET, poll=poll, **keys)


def tags_of(store: S3Store, key: str) -> dict[str, str]:
    answer = store.request("GET", f"/{BUCKET}/{quote(key)}?tagging=")
    return dict(re.findall(r"<Key>(.*?)</Key>\s*<Value>(.*?)</Value>", answer.text))


def set_tags(store: S3Store, key: str, tags: dict[str, str]) -> None:
    inside = "".join(f"<Tag><Key>{name}</Key><Value>{value}</Value></Tag>" for name, value in tags.items())
    body = f"<Tagging><TagSet>{inside}</TagSet></Tagging>".encode()
    answer = store.request("PUT", f"/{BUCKET}/{quote(key)}?tagging=", body)
    assert answer.status_code in (200, 204), answer.text


def ours(store: S3Store, key: str) -> set[str]:
    return set(filter(None, tags_of(store, key).get("autotag", "").split("/")))


def shown(store: S3Store, key: str) -> list[str]:
    return [f"{name}={value}" for name, value in tags_of(store, key).items()]


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AUTOTAG_TEST_WEED", weed())
        with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as running:
            assert running.request("PUT", f"/{BUCKET}").status_code == 200
            yield running


def test_a_listed_bucket_has_its_objects_tagged(
    seaweed: S3Store, broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path], table: Table
) -> None:
    cat, motorcycle = (photographs[name].read_bytes() for name in ("chelsea", "motorcycle_left"))
    before = ("2026/Ä cat+1.jpg", "b.jpg")
    for key in before:
        seaweed.put(BUCKET, key, cat)
    seaweed.put(BUCKET, "notes.txt", b"no picture")
    set_tags(seaweed, "b.jpg", {"project": "zoo"})
    with connected(broker, queue_prefix, tmp_path, configuration(seaweed, _POLL)) as connector:
        # Given objects from before, and one more
        seaweed.put(BUCKET, "later.jpg", motorcycle)
        expected = {before[0]: "cat", "b.jpg": "cat", "later.jpg": "motorcycle"}
        for key, tag in expected.items():
            until(lambda key=key, tag=tag: tag in ours(seaweed, key), f"{key} is tagged", within_s=90)  # type: ignore[misc]
            table.row("SeaweedFS: an object is listed", key, shown(seaweed, key))
        assert tags_of(seaweed, "b.jpg")["project"] == "zoo"
        assert tags_of(seaweed, "notes.txt") == {}
        # When an object is replaced
        seaweed.put(BUCKET, "b.jpg", motorcycle)
        until(lambda: "motorcycle" in ours(seaweed, "b.jpg"), "the new picture's tags stand", within_s=90)
        table.row("SeaweedFS: another picture in its place", "b.jpg", shown(seaweed, "b.jpg"))
        # Then nothing was sent twice: our own tags are no upload
        assert published(connector) == 4
        listed = connector.counted("autotag_connect_polls_total", outcome="complete")
        until(lambda: connector.counted("autotag_connect_polls_total", outcome="complete") > listed + 3, "it lists on")
        assert published(connector) == 4


def published(connector: RunningConnector) -> float:
    return connector.counted("autotag_connect_uploads_total", outcome="published")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    with ceph(tmp_path_factory.mktemp("ceph")) as running:
        assert running.request("PUT", f"/{BUCKET}").status_code == 200
        yield running


@contextmanager
def copies_of_results(broker: str, prefix: str) -> Iterator[Callable[[], list[bytes]]]:
    """What the service answers from now on, though the connector takes it."""
    connection = pika.BlockingConnection(pika.URLParameters(broker))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, f"{prefix}.results.copies", "#")

    def take() -> list[bytes]:
        found = []
        while (body := channel.basic_get(queue, auto_ack=True)[2]) is not None:
            found.append(body)
        return found

    try:
        yield take
    finally:
        connection.close()


def test_cephs_own_messages_have_its_objects_tagged(
    gateway: Ceph, broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path], table: Table
) -> None:
    with (
        connected(broker, queue_prefix, tmp_path, configuration(gateway)),
        copies_of_results(broker, queue_prefix) as copies,
    ):
        gateway.notify(BUCKET, broker, f"{queue_prefix}.images", "live", ["s3:ObjectCreated:*"])
        key = "2026/Ä cat+1.jpg"
        gateway.put(BUCKET, key, photographs["chelsea"].read_bytes())
        gateway.put(BUCKET, "b.jpg", photographs["motorcycle_left"].read_bytes())
        for name, tag in ((key, "cat"), ("b.jpg", "motorcycle")):
            # Ceph looks for what is to be sent every half minute
            until(lambda name=name, tag=tag: tag in ours(gateway, name), f"{name} is tagged", within_s=180)  # type: ignore[misc]
            table.row("Ceph: its gateway publishes an upload", name, shown(gateway, name))
        # And the message is as its sources say: the key as it is
        assert {json.loads(each)["data"]["context"]["s3"]["key"] for each in copies()} == {key, "b.jpg"}

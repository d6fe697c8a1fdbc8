"""The poller of buckets on a real SeaweedFS, with a real RabbitMQ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.connector import running_connector
from tests.support.polling import until
from tests.support.s3_stores import STORES, S3Store
from tests.support.service import Dms
from worker.messages.s3_notifications import read_s3_event, s3_notification

KEY = "2026/übung & more +1.jpg"


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with STORES[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def dms(broker: str, queue_prefix: str) -> Iterator[Dms]:
    queues = Dms(broker, queue_prefix)
    yield queues
    queues.close()


def configuration(store: S3Store, bucket: str, secret: str | None = None) -> str:
    return f"""
[sources.s3.store]
endpoint = "{store.url}"
access_key = "{store.keys.access_key}"
secret_key = "{secret or store.keys.secret_key}"
buckets = ["{bucket}"]
[connect.bucket]
s3 = "store"
poll = {{ enabled = true, kind = "s3", bucket = "{bucket}", every_s = 1, prefix = "2026/", accept = "size > `0`" }}
"""


def gather(dms: Dms, found: Counter[str]) -> Counter[str]:
    """Add all that waits in the queue, by asset, as the service reads it."""
    for message in dms.waiting("images.live"):
        notification = s3_notification(message.body, message.properties.message_id)
        assert notification is not None
        assert notification.is_one_event
        found[read_s3_event(notification.records[0], {}, lambda _bucket: "default").event.data.asset_id] += 1
    return found


def test_each_object_is_an_event_once_until_it_is_another(
    broker: str, queue_prefix: str, dms: Dms, store: S3Store, tmp_path: Path
) -> None:
    bucket = "pictures"
    assert store.request("PUT", f"/{bucket}").status_code == 200
    keys = [f"2026/{number:04}.jpg" for number in range(1100)]  # more than a page
    for key in [*keys, KEY, "2025/old.jpg"]:
        store.put(bucket, key, b"a picture")
    store.put(bucket, "2026/empty.jpg", b"")
    expected = {f"{bucket}/{key}": 1 for key in [*keys, KEY]}
    found: Counter[str] = Counter()
    with running_connector(broker, queue_prefix, tmp_path, configuration(store, bucket)) as connector:
        until(lambda: gather(dms, found) == expected, "all are published")
        # When one is put again with the same bytes, and gets a tag, nothing comes of it
        store.put(bucket, keys[0], b"a picture")
        tag = b"<Tagging><TagSet><Tag><Key>autotag</Key><Value>cat</Value></Tag></TagSet></Tagging>"
        assert store.request("PUT", f"/{bucket}/{keys[1]}?tagging=", tag).status_code == 200
        store.put(bucket, KEY, b"another picture")
        expected[f"{bucket}/{KEY}"] = 2
        until(lambda: gather(dms, found) == expected, "the other one is published")
        before = connector.counted("autotag_connect_polls_total", outcome="complete")
        until(lambda: connector.counted("autotag_connect_polls_total", outcome="complete") > before + 1, "it lists on")
        assert gather(dms, found) == expected
        assert connector.stop() == 0


@pytest.mark.parametrize(("secret", "bucket"), [("wrong", "pictures2"), (None, "no-such-bucket")])
def test_wrong_keys_and_a_bucket_that_is_not_there_are_said(
    broker: str, queue_prefix: str, store: S3Store, tmp_path: Path, secret: str | None, bucket: str
) -> None:
    store.request("PUT", "/pictures2")
    settings = configuration(store, bucket, secret)
    with running_connector(broker, queue_prefix, tmp_path, settings) as connector:

        def trouble() -> dict[str, str]:
            found: dict[str, str] = connector.status()["connections"]["bucket"]["poll"]["trouble"] or {}
            return found

        until(trouble, "it says so")
        expected = ("system_refuses", "403") if secret == "wrong" else ("listing_refused", "404")
        assert trouble()["reason"] == expected[0]
        assert expected[1] in trouble()["message"]
        assert store.keys.secret_key not in json.dumps(trouble()) + connector.logged()

"""A bucket of 100,000 objects is tagged: the connector's memory stays, and the store gets no more than it may.

The store is a server of the test's own that speaks S3's listing and tagging; the test stands in for the service, and
answers each event at once. AUTOTAG_TEST_OBJECTS sets another number.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pika
import psutil
import pytest

from tests.support.connector import running_connector
from tests.support.delivering import result_body
from tests.support.polling import until
from tests.systems.conftest import Table
from tests.systems.store_of_many import serve

pytestmark = pytest.mark.timeout(3600)

OBJECTS = int(os.environ.get("AUTOTAG_TEST_OBJECTS", "100000"))
WRITES_PER_S = 250
MOST_GROWTH_BYTES = 24_000_000
_CONFIGURATION = """
[sources.s3.store]
endpoint = "{url}"
access_key = "autotag-test"
secret_key = "secret"
buckets = ["pictures"]
[connect.store]
s3 = "store"
lane = "bulk"
[connect.store.poll]
enabled = true
kind = "s3"
bucket = "pictures"
every_s = 3600
[connect.store.target]
enabled = true
kind = "s3"
accept = "context.s3.bucket == 'pictures'"
writes_per_s = {writes_per_s}
at_once = 8
"""


@contextmanager
def store() -> Iterator[tuple[str, Any]]:
    """The store in a process of its own: its address, and how many objects were tagged in which second."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        seconds = manager.dict()
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, OBJECTS, seconds))
        process.start()
        try:
            yield f"http://127.0.0.1:{ours.recv()}", seconds
        finally:
            process.kill()
            process.join()
    # It would end with this process, which first sees that no other is left.
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


class StandIn:
    """Takes events as the service does, and answers each with two tags."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url, self._prefix = url, prefix
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        channel = connection.channel()
        channel.basic_qos(prefetch_count=100)
        for method, _, body in channel.consume(f"{self._prefix}.images.bulk", inactivity_timeout=0.5):
            if self._stop.is_set():
                break
            if method is None:
                continue
            found = json.loads(body)["Records"][0]["s3"]
            key = unquote_plus(found["object"]["key"])  # as the service reads it
            s3 = {"bucket": "pictures", "key": key}
            routing_key, result = result_body(f"pictures/{key}", ["cat", "sofa"], connect=None, s3=s3)
            properties = pika.BasicProperties(delivery_mode=2)
            channel.basic_publish(f"{self._prefix}.results", routing_key, result, properties)
            channel.basic_ack(method.delivery_tag)
            self.answered += 1
        connection.close()


def test_a_large_bucket_takes_no_more_memory_and_gets_no_more_writes_than_it_may(
    broker: str, queue_prefix: str, tmp_path: Path, table: Table
) -> None:
    with store() as (url, seconds):
        settings = _CONFIGURATION.format(url=url, writes_per_s=WRITES_PER_S)
        began_s = time.monotonic()
        with running_connector(broker, queue_prefix, tmp_path, settings) as connector:
            process = psutil.Process(connector.process.pid)
            until(lambda: connector.counted("autotag_connect_uploads_total", outcome="published") > 0, "it publishes")
            with StandIn(broker, queue_prefix) as service:
                until(lambda: sum(seconds.values()) > OBJECTS // 20, "the first are tagged", within_s=600)
                early = process.memory_info().rss
                most = early
                while sum(seconds.values()) < OBJECTS:
                    most = max(most, process.memory_info().rss)
                    assert time.monotonic() < began_s + 3000, f"{sum(seconds.values())} of {OBJECTS} after 50 minutes"
                    time.sleep(1)
            took_s = time.monotonic() - began_s
            assert service.answered == OBJECTS
        assert sum(seconds.values()) == OBJECTS
        assert most < early + MOST_GROWTH_BYTES
        rates = Counter(dict(seconds))
        # A second's writes may begin in the one before
        assert max(rates.values()) <= 1.25 * WRITES_PER_S
        said = f"{OBJECTS / took_s:.0f} a second, at most {max(rates.values())} of {WRITES_PER_S} allowed; "
        said += f"{early / 1e6:.0f} MB at first, {most / 1e6:.0f} MB at most"
        table.row(f"{OBJECTS:,} objects listed and tagged", f"{took_s:.0f} s", [said])

"""(d) The small consumer that feeds the model server: pika, and threads that send images over kept connections.

python litserve_consumer.py PORT
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import common
import pika
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

AT_ONCE = 16
_of_thread = threading.local()


def ask(url: str, path: str) -> list[dict[str, object]]:
    """The tags that the server names."""
    if not hasattr(_of_thread, "session"):
        _of_thread.session = requests.Session()
        # Connections that were kept open while it was stopped may have been closed by the server.
        again = Retry(total=5, allowed_methods=None, backoff_factor=0.1)
        _of_thread.session.mount("http://", HTTPAdapter(max_retries=again))
    image = base64.b64encode(Path(path).read_bytes()).decode()
    answer = _of_thread.session.post(url, json={"image": image}, timeout=30)
    answer.raise_for_status()
    tags: list[dict[str, object]] = answer.json()["tags"]
    return tags


def main() -> None:
    """Consume until the process is ended."""
    url = f"http://127.0.0.1:{sys.argv[1]}/predict"
    connection = pika.BlockingConnection(pika.URLParameters(common.PIKA_URL))
    channel = connection.channel()
    channel.queue_declare(common.QUEUE, durable=True)
    channel.queue_declare(common.RESULTS, durable=True)
    channel.basic_qos(prefetch_count=AT_ONCE)
    pool = ThreadPoolExecutor(AT_ONCE)

    def settle(tag: int, path: str, found: list[dict[str, object]]) -> None:
        channel.basic_publish(
            "", common.RESULTS, common.result_body(path, found), pika.BasicProperties(delivery_mode=2)
        )
        channel.basic_ack(tag)

    def work(tag: int, path: str) -> None:
        found = ask(url, path)
        connection.add_callback_threadsafe(partial(settle, tag, path, found))

    def on_message(_channel: object, method: Any, _properties: object, body: bytes) -> None:
        pool.submit(work, method.delivery_tag, json.loads(body)["path"])

    channel.basic_consume(common.QUEUE, on_message)
    channel.start_consuming()


if __name__ == "__main__":
    main()

"""(a) The consumer people write first: pika, Pillow, Keras `predict`, one image after the other."""

from __future__ import annotations

import json
from typing import Any

import common
import pika
from runtimes import open_runtime


def main() -> None:
    """Consume until the process is ended."""
    model = open_runtime()
    connection = pika.BlockingConnection(pika.URLParameters(common.PIKA_URL))
    channel = connection.channel()
    channel.queue_declare(common.QUEUE, durable=True)
    channel.queue_declare(common.RESULTS, durable=True)
    channel.basic_qos(prefetch_count=10)

    def on_message(channel: Any, method: Any, _properties: object, body: bytes) -> None:
        path = json.loads(body)["path"]
        logits = model.logits(common.load(path)[None])
        channel.basic_publish(
            "",
            common.RESULTS,
            common.result_body(path, common.tags(logits[0])),
            pika.BasicProperties(delivery_mode=2),
        )
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(common.QUEUE, on_message)
    channel.start_consuming()


if __name__ == "__main__":
    main()

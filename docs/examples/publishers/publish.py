"""Announces one image to Autotag, and reads results until that of this image has come.

pip install pika
AMQP_URL=amqp://dms:password@rabbitmq/ python publish.py photos/harbour.jpg
"""

import json
import os
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

import pika

LONGEST_WAIT_S = 120


def publish(channel: Any, event: dict[str, Any]) -> None:
    """Returns when RabbitMQ has stored the event; raises pika.exceptions.UnroutableError or NackError otherwise."""
    channel.confirm_delivery()
    channel.basic_publish(
        exchange="autotag.images",
        routing_key="live",  # "bulk" for work that no user waits for
        body=json.dumps(event).encode(),
        properties=pika.BasicProperties(
            content_type="application/cloudevents+json", message_id=event["id"], delivery_mode=2
        ),
        mandatory=True,
    )


def upload_event(path: str) -> dict[str, Any]:
    """A CloudEvent. Keep `id` and `source` when it has to be sent again: it is the same event then."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/dms/documents",
        "type": "dms.image.uploaded.v1",
        "time": datetime.now(UTC).isoformat(),
        "data": {
            "asset_id": path,
            "instance": "default",
            "content": {"path": path},
            "existing_tags": [],
            "context": {"version": "1.0"},  # comes back in the result
        },
    }


def main() -> int:
    connection = pika.BlockingConnection(
        pika.URLParameters(os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/"))
    )
    channel = connection.channel()
    event = upload_event(sys.argv[1])
    publish(channel, event)

    seen = set()  # a DMS keeps these ids where they outlive a restart
    for method, properties, body in channel.consume("autotag.results", inactivity_timeout=LONGEST_WAIT_S):
        if method is None:
            print(f"no result within {LONGEST_WAIT_S} s", file=sys.stderr)
            return 1
        result = json.loads(body)["data"]
        if properties.message_id not in seen:
            seen.add(properties.message_id)
            print(result["asset_id"], result["status"], ", ".join(tag["name"] for tag in result["tags"]))
        channel.basic_ack(method.delivery_tag)  # only now that it has been dealt with
        if result["event_id"] == event["id"] and result["complete"]:
            break
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A connection's results, delivered to its target in this process or in one of its own, beside a real RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pika
from prometheus_client import CollectorRegistry

from tests.support.polling import eventually
from worker.amqp.topology import Lane, topology
from worker.connect.deliver import Deliverer, make_target, topology_of
from worker.connect.ledger import TagLedger
from worker.connect.target_metrics import TargetMetrics
from worker.messages.results import Result, Tag, write_result
from worker.settings import Settings

NAME = "photos"
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def connection_settings(url: str, prefix: str, connection: Mapping[str, Any], **others: Any) -> Settings:
    """Settings with one connection, and waits of fractions of a second."""
    tree = {
        "amqp": {"url": url, "queue_prefix": prefix, "reconnect_max_s": 1},
        "connector": {"delays_s": [0.3, 1, 5]},
        "connect": {NAME: connection},
        **others,
    }
    return Settings.model_validate(tree)


def result_body(
    asset: str,
    names: Sequence[str],
    *,
    minute: float = 0,
    connect: str | None = NAME,
    complete: bool = True,
    status: Any = None,
    instance: str = "default",
    time: datetime | None = None,
    event_id: str | None = None,
    **context: Any,
) -> tuple[str, bytes]:
    """The routing key and the body of a result that was written some minutes after noon."""
    tags = tuple(Tag(name, 0.9 - number / 100, "tensorflow") for number, name in enumerate(names))
    carried = {**({"connect": connect} if connect else {}), **context}
    result = Result(
        asset_id=asset,
        instance=instance,
        event_id=event_id or str(uuid.uuid4()),
        status=status or ("tagged" if tags else "no_tags"),
        tags=tags,
        complete=complete,
        context=carried or None,
    )
    written = time or NOON + timedelta(minutes=minute)
    message = write_result(result, event=None, settings_digest="0" * 64, time=written)
    return message.routing_key, message.body


class ResultPublisher:
    """Publishes results as the service does, and looks into queues."""

    def __init__(self, url: str, prefix: str, settings: Settings) -> None:
        self.names = topology(prefix, (1,))
        self.layout = topology_of(settings, NAME)
        self._url = url
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()
        exchange = self.names.results_exchange
        self._channel.exchange_declare(exchange, "topic", durable=True)
        self._channel.exchange_declare(self.names.copies_exchange, "topic", durable=True)

    def publish(self, key: str, body: bytes) -> None:
        properties = pika.BasicProperties(delivery_mode=2, content_type="application/cloudevents+json")
        self._channel.basic_publish(self.names.results_exchange, key, body, properties, mandatory=True)
        self._channel.basic_publish(self.names.copies_exchange, key, body, properties)  # for those who only look on

    def result(self, asset: str, names: Sequence[str], **options: Any) -> None:
        self.publish(*result_body(asset, names, **options))

    def declare(self) -> None:
        """The connection's queue, before anything consumes it."""
        queue = next(each for each in self.layout.declared.queues if each.name == self.layout.queue)
        self._channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in self.layout.declared.bindings:
            if binding.queue == queue.name and binding.exchange == self.names.results_exchange:
                self._channel.queue_bind(queue.name, binding.exchange, binding.routing_key)

    def take_event(self) -> dict[str, Any] | None:
        """The next event for the service, if there is one."""
        with (
            suppress(pika.exceptions.AMQPError),
            pika.BlockingConnection(pika.URLParameters(self._url)) as own,
        ):
            _, _, body = own.channel().basic_get(self.names.lane_queue(Lane.LIVE), auto_ack=True)
            return json.loads(body) if body else None
        return None

    def depth(self, queue: str) -> int:
        """How many messages are ready."""
        count: int = self._channel.queue_declare(queue, passive=True).method.message_count
        return count

    def waiting(self) -> int:
        """How many wait, in the queue or for another attempt."""
        return sum(
            self.depth(each.name) for each in self.layout.declared.queues if each.name.startswith(self.layout.queue)
        )

    def dead_letters(self) -> list[tuple[dict[str, Any], bytes]]:
        """Takes them."""
        found: list[tuple[dict[str, Any], bytes]] = []
        while True:
            method, properties, body = self._channel.basic_get(self.names.dead_letters_queue, auto_ack=True)
            if method is None:
                return found
            found.append((properties.headers, body))

    def close(self) -> None:
        """Disconnect. Harmless where the broker has gone."""
        with suppress(Exception):
            self._connection.close()

    def clean(self) -> None:
        """Delete everything, and close."""
        self.close()
        with pika.BlockingConnection(pika.URLParameters(self._url)) as connection:
            channel = connection.channel()
            for queue in self.layout.declared.queues:
                channel.queue_delete(queue.name)
            for exchange in self.layout.declared.exchanges:
                channel.exchange_delete(exchange.name)
            channel.exchange_delete(self.names.copies_exchange)


@dataclass
class Delivering:
    """A running deliverer."""

    deliverer: Deliverer
    results: ResultPublisher
    ledger: TagLedger
    registry: CollectorRegistry
    settings: Settings
    task: asyncio.Task[None] = field(repr=False)

    def counted(self, outcome: str) -> float:
        """How many results had this outcome."""
        labels = {"connection": NAME, "outcome": outcome}
        return self.registry.get_sample_value("autotag_connect_results_total", labels) or 0.0


@asynccontextmanager
async def delivering(
    url: str, prefix: str, connection: Mapping[str, Any], ledger: Path, **others: Any
) -> AsyncIterator[Delivering]:
    """A deliverer that takes results, for the length of the block; its queues are deleted afterwards."""
    settings = connection_settings(url, prefix, connection, **others)
    kept, registry = TagLedger(ledger), CollectorRegistry()
    deliverer = Deliverer(NAME, settings, make_target(NAME, settings), kept, TargetMetrics(registry))
    task = asyncio.create_task(deliverer.run())
    results = ResultPublisher(url, prefix, settings)
    try:
        await eventually(lambda: deliverer.state.broker_fault is None, "results are taken", within_s=20)
        yield Delivering(deliverer, results, kept, registry, settings, task)
    finally:
        task.cancel()
        await asyncio.wait({task})
        kept.close()
        results.clean()


@contextmanager
def delivering_process(settings: Settings, ledger: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The same in a process of its own, which a test may kill."""
    tree: dict[str, Any] = {
        "amqp": {"url": settings.amqp.url.get_secret_value(), "queue_prefix": settings.amqp.queue_prefix},
        "connector": {"delays_s": list(settings.connector.delays_s)},
        "connect": {NAME: settings.connect[NAME].model_dump(mode="json", exclude_defaults=True)},
    }
    credential = settings.connect[NAME].credential
    if credential.value is not None:
        tree["connect"][NAME]["credential"]["value"] = credential.value.get_secret_value()
    command = [sys.executable, "-m", "tests.support.delivering", json.dumps(tree), str(ledger)]
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


async def _main(tree: str, ledger: str) -> None:
    settings = Settings.model_validate(json.loads(tree))
    kept = TagLedger(Path(ledger))
    await Deliverer(NAME, settings, make_target(NAME, settings), kept, TargetMetrics(CollectorRegistry())).run()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))

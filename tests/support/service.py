"""A real `autotag run` in a process of its own, and the two queues seen from the DMS's side."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
import psutil

from tests.support.polling import TIME_LIMIT_S, until
from worker.amqp.topology import Topology
from worker.messages import EVENT_TYPE

# With which RabbitMQ 3 closes the connection of a client that asks for a message while another is declaring the queue
INTERNAL_ERROR = 541


@dataclass(frozen=True)
class Message:
    """A message taken from one of the queues."""

    body: bytes
    properties: pika.BasicProperties
    routing_key: str

    @property
    def data(self) -> dict[str, Any]:
        """A result's data."""
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data


def inline(image: bytes) -> dict[str, str]:
    """The content of an event that holds the image itself."""
    return {"base64": base64.b64encode(image).decode()}


def delete_topology(channel: Any, topology: Topology) -> None:
    """Delete the queues and exchanges that a service has declared; `channel` is one of a BlockingConnection."""
    for queue in topology.queues:
        channel.queue_delete(queue.name)
    for exchange in topology.exchanges:
        channel.exchange_delete(exchange.name)


class Dms:
    """A document management system: publishes events, takes results, looks into the queues."""

    def __init__(self, url: str, prefix: str) -> None:
        self.prefix = prefix
        self._url = url
        self._connect()

    def _connect(self) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()

    def close(self) -> None:
        """Disconnect. Harmless when a test has broken the connection."""
        with suppress(pika.exceptions.AMQPError):
            self._connection.close()

    def publish_body(
        self, body: bytes, *, content_type: str | None = "application/json", lane: str = "live", **properties: Any
    ) -> None:
        """Publish a body as it is."""
        self._channel.basic_publish(
            f"{self.prefix}.images",
            lane,
            body,
            pika.BasicProperties(content_type=content_type, delivery_mode=2, **properties),
            mandatory=True,
        )

    def publish(
        self, content: Mapping[str, str], *, asset_id: str | None = None, lane: str = "live", **data: Any
    ) -> str:
        """Publish a structured CloudEvent for an image; the event's id."""
        event_id = str(uuid.uuid4())
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "/dms",
            "type": EVENT_TYPE,
            "data": {"asset_id": asset_id or f"asset-{event_id}", "content": dict(content), **data},
        }
        body = json.dumps(event).encode()
        self.publish_body(body, content_type="application/cloudevents+json", lane=lane, message_id=event_id)
        return event_id

    @contextmanager
    def without_confirms(self) -> Iterator[None]:
        """In the block messages are published without waiting for RabbitMQ: a backlog comes to be in seconds."""
        confirming, self._channel = self._channel, self._connection.channel()
        try:
            yield
        finally:
            self._channel.close()  # which RabbitMQ answers when it has taken all of them
            self._channel = confirming

    def take(self, queue: str) -> Message | None:
        """The next message of a queue, acknowledged."""
        method, properties, body = self._channel.basic_get(f"{self.prefix}.{queue}", auto_ack=True)
        return None if method is None else Message(body, properties, method.routing_key)

    def waiting(self, queue: str) -> list[Message]:
        """All that waits in a queue, acknowledged; nothing where the queue is not there yet."""
        found: list[Message] = []
        try:
            while self.exists(queue) and (message := self.take(queue)) is not None:
                found.append(message)
        except pika.exceptions.ConnectionClosedByBroker as error:
            if error.reply_code != INTERNAL_ERROR:
                raise
            self._connect()
        return found

    def results(self, number: int, *, within_s: float = TIME_LIMIT_S) -> list[Message]:
        """The next `number` results."""
        found: list[Message] = []

        def enough() -> bool:
            while len(found) < number and (message := self.take("results")):
                found.append(message)
            return len(found) == number

        until(enough, f"{number} results came, not only {len(found)}", within_s=within_s)
        return found

    def results_of(self, event_ids: Iterable[str], *, within_s: float = TIME_LIMIT_S) -> dict[str, list[Message]]:
        """All results until each of the events has one, by event id."""
        wanted = set(event_ids)
        found: dict[str, list[Message]] = {}

        def all_there() -> bool:
            while message := self.take("results"):
                found.setdefault(message.data["event_id"], []).append(message)
            return wanted <= set(found)

        until(all_there, "each event had its result", within_s=within_s)
        return found

    def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        return int(self._channel.queue_declare(f"{self.prefix}.{queue}", passive=True).method.message_count)

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with what is in it."""
        self._channel.queue_delete(f"{self.prefix}.{queue}")

    def exists(self, queue: str) -> bool:
        """Whether there is such a queue.

        This has a connection of its own, which RabbitMQ breaks off while somebody else declares the queue.
        """
        with suppress(pika.exceptions.AMQPError), pika.BlockingConnection(pika.URLParameters(self._url)) as own:
            own.channel().queue_declare(f"{self.prefix}.{queue}", passive=True)
            return True
        return False

    def fits(self, queue: str) -> bool:
        """Publish an empty message to a queue itself; whether it has taken it."""
        try:
            self._channel.basic_publish("", f"{self.prefix}.{queue}", b"", mandatory=True)
        except pika.exceptions.NackError:
            return False
        return True

    def unbind_results(self) -> None:
        """Leave results without a queue."""
        self._channel.queue_unbind(f"{self.prefix}.results", f"{self.prefix}.results.unclaimed", "")

    def bind_results(self) -> None:
        """Undo `unbind_results`."""
        self._channel.queue_bind(f"{self.prefix}.results", f"{self.prefix}.results.unclaimed", "")


class RunningService:
    """One `autotag run`. Its log is in `log`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, environment: dict[str, str]) -> None:
        self.process = process
        self.log = log
        self.environment = environment

    def autotag(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another `autotag` command under the same settings."""
        command = [sys.executable, "-m", "worker", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def status(self) -> dict[str, Any] | None:
        """What the control socket says, if it is there yet."""
        from worker.errors import TryLater

        try:
            status: dict[str, Any] = self._ask("status")
        except TryLater:
            return None
        return status

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have it take no events in the block."""
        self._ask("pause")
        try:
            yield
        finally:
            self._ask("resume")

    def _ask(self, command: str) -> Any:
        import asyncio

        from worker.operations.control import send_command

        return asyncio.run(send_command(Path(self.environment["AUTOTAG_CONTROL_SOCKET"]), command))

    def ready(self, *, within_s: float = TIME_LIMIT_S) -> RunningService:
        """Wait until it takes events."""
        until(lambda: (self.status() or {}).get("ready"), f"it became ready; log: {self.logged()}", within_s=within_s)
        return self

    def logged(self) -> str:
        """All it has logged so far."""
        return self.log.read_text(errors="replace")

    def children(self, kind: str) -> list[psutil.Process]:
        """Its living children of a kind, `model` or `decoder`."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if f"worker.children.{kind}" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.Error:
                continue
        return found

    def crash_model(self, times: int) -> None:
        """Kill its model child as soon as there is one, this many times."""
        killed: set[int] = set()
        for number in range(times):
            (child,) = until(
                lambda: [each for each in self.children("model") if each.pid not in killed],
                f"there was a model child to kill for the {number + 1}. time",
            )
            killed.add(child.pid)
            child.kill()

    def stop(self, *, within_s: float = 40) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=within_s)


@contextmanager
def running_service(
    url: str, prefix: str, folder: Path, stderr: int | None = None, /, **settings: str
) -> Iterator[RunningService]:
    """`autotag run` with TensorFlow on and settings in the form of environment names without the prefix AUTOTAG_.

    It logs to `stderr`, a descriptor, or else to `log.jsonl` in the folder. A service that still runs at the end is
    killed: a test that wants an orderly end asks for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTAG_")}
    environment |= {name: os.environ[name] for name in ("AUTOTAG_CACHE_DIR",) if name in os.environ}
    environment |= {
        "AUTOTAG_AMQP__URL": url,
        "AUTOTAG_AMQP__QUEUE_PREFIX": prefix,
        "AUTOTAG_AMQP__RECONNECT_MAX_S": "2",
        "AUTOTAG_CONTROL_SOCKET": str(folder / "control.sock"),
        "AUTOTAG_STATE_DIR": str(folder / "state"),
        "AUTOTAG_HTTP__PORT": "0",
        "AUTOTAG_LOG__FORMAT": "json",
        "AUTOTAG_DEFAULTS__TENSORFLOW__ENABLED": "true",
        "AUTOTAG_TENSORFLOW__MODEL": "efficientnet-lite0",
        "AUTOTAG_CANARY__ENABLED": "false",  # tests count images, and say what the first one of a child is
    }
    if "TENSORFLOW__MODELS" in settings:  # in place of the one
        del environment["AUTOTAG_TENSORFLOW__MODEL"]
    environment |= {f"AUTOTAG_{name}": value for name, value in settings.items()}
    log = folder / "log.jsonl"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "--traceable", "run"],  # tests count its descriptors
            env=environment,
            stdout=output,
            stderr=output if stderr is None else stderr,
        )
        try:
            yield RunningService(process, log, environment)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)

"""From publish to result at a given load: events come independently of each other, each result is timed as it comes.

The moments are taken by one clock in this process, where the events are published and the results arrive. What the
service itself logs shows where the time went: in the queue and on the wire, or in which stage.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
from measuring import arrivals, percentile
from service_under_test import AutotagService

_NOT_COUNTED_S = 0.5
_LATE_S = 120.0
"""For the last result. Long, because at 90 % load a machine that is not quiet falls behind, and has to catch up."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds. `queue_wait_ms` is what passed outside the service: in queues, in the broker, on the wire."""

    rate_per_s: float
    events: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    queue_wait_ms: dict[str, float]
    stages_ms: dict[str, float]


class _Listener:
    """Takes results from their queue, and notes when each came."""

    def __init__(self, url: str, queue: str) -> None:
        parameters = pika.URLParameters(url)
        self.came_s: dict[str, float] = {}
        self._connection = pika.BlockingConnection(parameters)
        channel = self._connection.channel()
        channel.basic_consume(queue, self._on_result, auto_ack=True)
        self._thread = threading.Thread(target=channel.start_consuming, name="results", daemon=True)
        self._channel = channel
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._connection.add_callback_threadsafe(self._channel.stop_consuming)
        self._thread.join()
        self._connection.close()

    def _on_result(self, _channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        now_s = time.perf_counter()
        self.came_s[json.loads(body)["data"]["event_id"]] = now_s


def measure(
    service: AutotagService, url: str, files: Sequence[Path], rate_per_s: float, seconds: float, seed: int
) -> Latencies:
    """Publish at a rate for a while, and time every result. Raises TimeoutError when one does not come."""
    service.settle()
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    listener = _Listener(url, service.layout.results_queue)
    sent_s: dict[str, float] = {}
    counted: list[str] = []
    try:
        began_s = time.perf_counter()
        for number, due_s in enumerate(arrivals(rate_per_s, seconds, seed)):
            event_id, message = service.event({"path": str(files[number % len(files)])})
            time.sleep(max(0.0, began_s + due_s - time.perf_counter()))
            sent_s[event_id] = time.perf_counter()
            channel.basic_publish(message.exchange, message.routing_key, message.body, message.properties)
            if due_s > _NOT_COUNTED_S:
                counted.append(event_id)
        _wait(lambda: len(listener.came_s) >= len(sent_s), f"{len(sent_s)} results came")
    finally:
        listener.close()
        connection.close()
    took_ms = {event_id: (listener.came_s[event_id] - sent_s[event_id]) * 1000 for event_id in counted}
    inside = {line["event_id"]: line for line in service.logged("event ended") if line.get("event_id") in took_ms}
    waited_ms = [took_ms[event_id] - line["seconds"] * 1000 for event_id, line in inside.items()]
    return Latencies(
        rate_per_s=rate_per_s,
        events=len(took_ms),
        p50_ms=percentile(list(took_ms.values()), 0.5),
        p95_ms=percentile(list(took_ms.values()), 0.95),
        p99_ms=percentile(list(took_ms.values()), 0.99),
        queue_wait_ms={f"p{share}": percentile(waited_ms, share / 100) for share in (50, 95, 99)},
        stages_ms=_medians([line.get("stages_s", {}) for line in inside.values()]),
    )


def _medians(stages: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for each in stages for name in each})
    return {name: statistics.median(each.get(name, 0.0) for each in stages) * 1000 for name in names}


def _wait(condition: Any, what: str) -> None:
    deadline_s = time.monotonic() + _LATE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"within {_LATE_S:g} s: {what}")
        time.sleep(0.02)

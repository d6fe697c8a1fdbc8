"""The metrics of the service: one registry, kept in the parent, so that no child's death loses a count.

Base units, bounded labels, and every series there from the start, so that a rate is right from the first event on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from worker.amqp import BrokerState
from worker.lifecycle import BecameDisabled, BecameReady, Crashed, Notice
from worker.messages import Result

STAGES = ("fetch", "decode", "shrink", "publish")
ENDINGS = ("answered", "retried", "dead_lettered", "requeued")
STATUSES = ("tagged", "no_tags", "skipped", "failed")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What is counted and timed, in words of the pipeline rather than of Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = Counter(
            "autotag_events", "Deliveries by how they ended", ["ending", "reason"], registry=self.registry
        )
        self._results = Counter(
            "autotag_results", "Results published and confirmed", ["status"], registry=self.registry
        )
        self._unroutable = Counter(
            "autotag_unroutable_results", "Results that no queue was bound for", registry=self.registry
        )
        self._stage = Histogram(
            "autotag_stage_duration_seconds", "Time in each stage", ["stage"], buckets=_SECONDS, registry=self.registry
        )
        self._whole = Histogram(
            "autotag_event_duration_seconds", "From delivery to settlement", buckets=_SECONDS, registry=self.registry
        )
        self._in_hand = Gauge("autotag_events_in_hand", "Deliveries being worked on", registry=self.registry)
        self._consuming = Gauge("autotag_consumer_active", "1 while events are taken", registry=self.registry)
        self._blocked = Gauge("autotag_broker_blocked", "1 while RabbitMQ blocks publishing", registry=self.registry)
        self._reconnects = Gauge("autotag_broker_reconnects", "Connections after the first", registry=self.registry)
        self._crashes = Counter(
            "autotag_child_crashes", "Children that died unasked", ["kind", "reason", "counted"], registry=self.registry
        )
        self._disabled = Gauge("autotag_model_disabled", "1 while the model is disabled", registry=self.registry)
        for ending in ENDINGS:
            self._events.labels(ending, "")
        for status in STATUSES:
            self._results.labels(status)
        for stage in STAGES:
            self._stage.labels(stage)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage, whether it succeeds or not."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self._stage.labels(name).observe(time.monotonic() - started_s)

    @contextmanager
    def in_hand(self) -> Iterator[None]:
        """Count a delivery as being worked on."""
        self._in_hand.inc()
        try:
            yield
        finally:
            self._in_hand.dec()

    def ended(self, ending: str, reason: str | None, took_s: float) -> None:
        """A delivery was settled."""
        self._events.labels(ending, reason or "").inc()
        self._whole.observe(took_s)

    def result(self, result: Result) -> None:
        """A result was confirmed by the broker."""
        self._results.labels(result.status).inc()

    def unroutable(self) -> None:
        """A result came back: no queue is bound for it."""
        self._unroutable.inc()

    def broker(self, state: BrokerState) -> None:
        """The connection to RabbitMQ changed."""
        self._consuming.set(state.ready)
        self._blocked.set(state.blocked is not None)
        self._reconnects.set(state.reconnects)

    def child(self, name: str, notice: Notice) -> None:
        """Something happened in a child's life."""
        kind = name.partition("-")[0]
        match notice:
            case Crashed(cause, counted):
                self._crashes.labels(kind, cause.reason, str(counted).lower()).inc()
            case BecameDisabled() if kind == "model":
                self._disabled.set(1)
            case BecameReady() if kind == "model":
                self._disabled.set(0)

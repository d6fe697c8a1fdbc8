"""What befalls events: how they end, what is answered, and where their time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from worker.amqp.delivery import Ending
from worker.amqp.topology import Lane
from worker.messages import ProviderStatus, Result, ResultStatus
from worker.operations import tracing
from worker.operations.metrics.labels import Reasons
from worker.operations.tracing import Trace
from worker.providers.replies import Reply

STAGES = ("queue_wait", "fetch", "decode", "shrink", "model", "publish")
"""In the order of an event's way. Cloud services come under their names; `shrink` is part of theirs."""

STAGE_OF_PROVIDER = {"tensorflow": "model"}

STATUSES: tuple[ResultStatus, ...] = get_args(ResultStatus)
REPLY_STATUSES: tuple[ProviderStatus, ...] = get_args(ProviderStatus)
BUILT_IN_PROVIDERS = ("tensorflow", "google_cloud_vision", "microsoft_vision")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class EventMetrics:
    """Told by the pipeline and by whoever tags."""

    def __init__(self, registry: CollectorRegistry, reasons: Reasons) -> None:
        self._reason = reasons
        self._received = Counter(
            "autotag_events_received", "Deliveries taken from a lane's queue", ["lane"], registry=registry
        )
        self._events = Counter(
            "autotag_events", "Deliveries by how they ended, and why", ["ending", "reason"], registry=registry
        )
        self._results = Counter(
            "autotag_results", "Results that RabbitMQ has confirmed", ["status", "reason"], registry=registry
        )
        self._tags = Counter("autotag_tags", "Tags in confirmed results that are complete", registry=registry)
        self._unroutable = Counter(
            "autotag_unroutable_results", "Results that came back: no queue is bound for them", registry=registry
        )
        self._replies = Counter(
            "autotag_provider_replies",
            "What providers replied about one image each",
            ["provider", "status", "reason"],
            registry=registry,
        )
        self._stage = Histogram(
            "autotag_stage_duration_seconds",
            "Time in each stage of an event's way",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            "autotag_event_duration_seconds",
            "From delivery to settlement, without the wait in the queue",
            ["ending"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_hand = Gauge("autotag_events_in_hand", "Deliveries being worked on", registry=registry)
        self._last_success = Gauge(
            "autotag_last_success_timestamp_seconds",
            "When a result for an image that was looked at was last confirmed; 0: not since the start",
            registry=registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        for lane in Lane:
            self._received.labels(lane.value)
        for ending in Ending:
            self._events.labels(ending, "")
            self._whole.labels(ending)
        for status in STATUSES:
            self._results.labels(status, "")
        for stage in (*STAGES, *(name for name in BUILT_IN_PROVIDERS if name not in STAGE_OF_PROVIDER)):
            self._stage.labels(stage)
        for provider in BUILT_IN_PROVIDERS:
            for reply_status in REPLY_STATUSES:
                self._replies.labels(provider, reply_status, "")

    def received(self, lane: Lane) -> None:
        """A delivery has come."""
        self._received.labels(lane.value).inc()

    def waited(self, seconds: float) -> None:
        """An event had waited so long, from its publication on, when it came."""
        self._stage.labels("queue_wait").observe(seconds, _exemplar(tracing.current_trace()))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage, for the metrics, the log and the trace, whether it succeeds or not."""
        started_s = time.monotonic()
        try:
            with tracing.span(name):
                yield
        finally:
            self._took(name, time.monotonic() - started_s)

    def _took(self, stage: str, seconds: float) -> None:
        trace = tracing.current_trace()
        self._stage.labels(stage).observe(seconds, _exemplar(trace))
        if trace is not None:
            trace.note(stage, seconds)

    def replied(self, reply: Reply) -> None:
        """A provider has been asked, and this is what came of it."""
        self._replies.labels(reply.provider, reply.status, self._reason(reply.reason)).inc()
        if reply.duration_s is not None:
            self._took(STAGE_OF_PROVIDER.get(reply.provider, reply.provider), reply.duration_s)

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
        self._events.labels(ending, self._reason(reason)).inc()
        self._whole.labels(ending).observe(took_s, _exemplar(tracing.current_trace()))

    def result(self, result: Result) -> None:
        """A result was confirmed by the broker."""
        self._results.labels(result.status, self._reason(result.reason)).inc()
        if result.complete:
            self._tags.inc(len(result.tags))
        if result.status in ("tagged", "no_tags"):
            self._last_success.set_to_current_time()

    def unroutable(self) -> None:
        """A result came back: no queue is bound for it."""
        self._unroutable.inc()


def _exemplar(trace: Trace | None) -> dict[str, str] | None:
    """The trace to look at for what is being observed now."""
    return {"trace_id": trace.trace_id} if trace is not None and trace.trace_id else None

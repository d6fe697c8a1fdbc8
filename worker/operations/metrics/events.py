"""Metrics of events: how they end, what providers reply, and how long each stage takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from worker.amqp.delivery import Ending
from worker.amqp.topology import Lane
from worker.messages import DEFAULT_INSTANCE, ProviderStatus, Result, ResultStatus
from worker.messages.oddities import CONTENT_FIELDS, INFORMATIVE_FIELDS, NUMERIC_FIELDS, OPTIONAL_FIELDS, OddField
from worker.messages.s3_notifications import WHYS_IGNORED, WhyIgnored
from worker.operations import tracing
from worker.operations.metrics.labels import OTHER, Instances, Reasons
from worker.operations.tracing import Trace
from worker.providers.base import BUILT_IN_PROVIDERS, TENSORFLOW
from worker.providers.replies import Reply

STAGES = ("queue_wait", "fetch", "decode", "shrink", "model", "publish")
"""In the order of processing. Cloud services have stages of their own names; `shrink` is part of theirs."""

STAGE_OF_PROVIDER = {TENSORFLOW: "model"}

STATUSES: tuple[ResultStatus, ...] = get_args(ResultStatus)
REPLY_STATUSES: tuple[ProviderStatus, ...] = get_args(ProviderStatus)

POSSIBLE_ODDITIES = (
    *(OddField(field, "empty") for field in (*INFORMATIVE_FIELDS, *OPTIONAL_FIELDS, *CONTENT_FIELDS)),
    *(OddField(field, "unusable") for field in (*INFORMATIVE_FIELDS, "properties")),
    *(OddField(field, "number") for field in NUMERIC_FIELDS),
    *(OddField(field, "implausible") for field in ("time", "timestamp")),
    OddField("body", "byte_order_mark"),
)
"""Series that exist from the start, so that the first of each kind is an increase."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


def uncounted() -> EventMetrics:
    """For images that are no event's: what is measured of them is shown to nobody."""
    return EventMetrics(CollectorRegistry(), Reasons(), Instances())


class EventMetrics:
    """Updated by the pipeline and the tagger."""

    def __init__(self, registry: CollectorRegistry, reasons: Reasons, instances: Instances) -> None:
        self._reason = reasons
        self._instance = instances
        self._received = Counter(
            "autotag_events_received", "Deliveries taken from a lane's queue", ["lane"], registry=registry
        )
        self._events = Counter(
            "autotag_events",
            "Deliveries by how they ended, and why",
            ["ending", "reason", "dms_instance"],
            registry=registry,
        )
        self._deferred = Counter(
            "autotag_events_deferred",
            "Events that gave way to other instances' events, each time they did",
            ["lane", "dms_instance"],
            registry=registry,
        )
        self._results = Counter(
            "autotag_results",
            "Results that RabbitMQ has confirmed",
            ["status", "reason", "dms_instance"],
            registry=registry,
        )
        self._tags = Counter("autotag_tags", "Tags in confirmed results that are complete", registry=registry)
        self._odd_fields = Counter(
            "autotag_odd_event_fields",
            "Fields of events that were not as described, and ignored or read all the same",
            ["field", "why"],
            registry=registry,
        )
        self._s3_ignored = Counter(
            "autotag_s3_records_ignored",
            "Records in notifications of S3 services that were no new images, and dropped",
            ["why"],
            registry=registry,
        )
        self._unroutable = Counter(
            "autotag_unroutable_results", "Results that came back: no queue is bound for them", registry=registry
        )
        self._replies = Counter(
            "autotag_provider_replies",
            "What providers replied about one image each",
            ["provider", "status", "reason"],
            registry=registry,
        )
        self._near_duplicates = Counter(
            "autotag_near_duplicates",
            "Images about which a provider was not asked, as its answer about one that looks the same was given again",
            ["provider", "dms_instance"],
            registry=registry,
        )
        self._cpu_saved = Counter(
            "autotag_near_duplicates_cpu_saved_seconds",
            "Processor time that those answers would have taken, by the mean of the others",
            ["provider", "dms_instance"],
            registry=registry,
        )
        self._stage = Histogram(
            "autotag_stage_duration_seconds",
            "Time in each stage of processing an event",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            "autotag_event_duration_seconds",
            "From delivery to settlement, without the wait in the queue",
            ["ending", "dms_instance"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_hand = Gauge("autotag_events_in_hand", "Deliveries being worked on", registry=registry)
        self._last_success = Gauge(
            "autotag_last_success_timestamp_seconds",
            "When a result with or without tags was last confirmed; 0: not since the start",
            registry=registry,
        )
        self._create_series()

    def _create_series(self) -> None:
        for lane in Lane:
            self._received.labels(lane.value)
            self._deferred.labels(lane.value, DEFAULT_INSTANCE)
        for ending in Ending:
            self._events.labels(ending, "", DEFAULT_INSTANCE)
            self._whole.labels(ending, DEFAULT_INSTANCE)
        for each in POSSIBLE_ODDITIES:
            self._odd_fields.labels(each.field, each.why)
        for why in WHYS_IGNORED:
            self._s3_ignored.labels(why)
        for status in STATUSES:
            self._results.labels(status, "", DEFAULT_INSTANCE)
        for stage in (*STAGES, *(name for name in BUILT_IN_PROVIDERS if name not in STAGE_OF_PROVIDER)):
            self._stage.labels(stage)
        for provider in BUILT_IN_PROVIDERS:
            self._near_duplicates.labels(provider, DEFAULT_INSTANCE)
            self._cpu_saved.labels(provider, DEFAULT_INSTANCE)
            for reply_status in REPLY_STATUSES:
                self._replies.labels(provider, reply_status, "")

    def use_instances(self, names: Iterable[str], *, histograms: int) -> None:
        """The instances that the settings name, from now on; `histograms` of them have durations of their own.

        What failed has its series from now on, so that an instance's first dead letter is an increase.
        """
        self._instance.configure(names, histograms=histograms)
        for name in (*self._instance.with_histograms, OTHER):
            self._whole.labels(Ending.DEAD_LETTERED, name)

    def received(self, lane: Lane) -> None:
        """A delivery has arrived."""
        self._received.labels(lane.value).inc()

    def deferred(self, lane: Lane, instance: str) -> None:
        """An event was over its instance's share of what is in hand, and waits in a retry queue."""
        self._deferred.labels(lane.value, self._instance(instance)).inc()

    def odd_fields(self, odd: Iterable[OddField]) -> None:
        """What was not as described in an event that was read all the same."""
        for each in odd:
            self._odd_fields.labels(each.field, each.why).inc()

    def s3_ignored(self, whys: Iterable[WhyIgnored]) -> None:
        """Records of a notification that were no new images."""
        for why in whys:
            self._s3_ignored.labels(why).inc()

    def observe_queue_wait(self, seconds: float) -> None:
        """An event arrived `seconds` after it was published."""
        self._stage.labels("queue_wait").observe(seconds, _exemplar(tracing.current_trace()))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage, for the metrics, the log and the trace, whether it succeeds or not."""
        started_s = time.monotonic()
        try:
            with tracing.span(name):
                yield
        finally:
            self._observe_stage(name, time.monotonic() - started_s)

    def _observe_stage(self, stage: str, seconds: float) -> None:
        trace = tracing.current_trace()
        self._stage.labels(stage).observe(seconds, _exemplar(trace))
        if trace is not None:
            trace.add_stage(stage, seconds)

    def replied(self, reply: Reply) -> None:
        """A provider has replied, or failed to."""
        self._replies.labels(reply.provider, reply.status, self._reason(reply.reason)).inc()
        if reply.duration_s is not None:
            self._observe_stage(STAGE_OF_PROVIDER.get(reply.provider, reply.provider), reply.duration_s)

    def given_again(self, provider: str, instance: str, cpu_s: float) -> None:
        """An answer about a near-duplicate was given again; asking the provider would have taken about `cpu_s`."""
        name = self._instance(instance)
        self._near_duplicates.labels(provider, name).inc()
        self._cpu_saved.labels(provider, name).inc(cpu_s)

    @contextmanager
    def in_hand(self) -> Iterator[None]:
        """Count a delivery as in hand during the block."""
        self._in_hand.inc()
        try:
            yield
        finally:
            self._in_hand.dec()

    def ended(self, ending: Ending, reason: str | None, instance: str | None, took_s: float) -> None:
        """A delivery was settled. `instance` is None for one that named none, or may not have."""
        self._events.labels(ending, self._reason(reason), self._instance(instance)).inc()
        whole = self._whole.labels(ending, self._instance.in_histograms(instance))
        whole.observe(took_s, _exemplar(tracing.current_trace()))

    def result(self, result: Result) -> None:
        """The broker has confirmed a result."""
        self._results.labels(result.status, self._reason(result.reason), self._instance(result.instance)).inc()
        if result.complete:
            self._tags.inc(len(result.tags))
        if result.status in ("tagged", "no_tags"):
            self._last_success.set_to_current_time()

    def unroutable(self) -> None:
        """A result was returned: no queue is bound for it."""
        self._unroutable.inc()


def _exemplar(trace: Trace | None) -> dict[str, str] | None:
    """The exemplar that links an observation to its trace."""
    return {"trace_id": trace.trace_id} if trace is not None and trace.trace_id else None

"""The cloud services: calls, retries, circuits and budgets, by provider and instance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.operations.metrics.labels import Instances, Reasons

CIRCUITS = ("closed", "half_open", "open")

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LANE = ["provider", "dms_instance"]
"""Not `instance`: Prometheus has that name for the worker that it scrapes."""


@dataclass(frozen=True, slots=True)
class AccountView:
    """How one instance stands with one service. `calls_used` is None while the month's calls are not known."""

    provider: str
    instance: str
    circuit: str
    calls_limit: int | None = None
    calls_used: int | None = None


class CloudMetrics:
    """Told of every call to a service; circuits and budgets are looked up when they are asked for."""

    def __init__(self, registry: CollectorRegistry, reasons: Reasons, instances: Instances) -> None:
        self._reason = reasons
        self._instance = instances
        self._calls = Counter(
            "autotag_provider_calls",
            "Calls made to a cloud service; outcome is ok or the reason of the failure",
            [*_LANE, "outcome"],
            registry=registry,
        )
        self._retries = Counter(
            "autotag_provider_retries", "Calls made again after a failure that may pass", _LANE, registry=registry
        )
        self._duration = Histogram(
            "autotag_provider_call_duration_seconds",
            "Time of one call to a cloud service",
            ["provider"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._lanes = _Lanes(instances)
        registry.register(self._lanes)

    def observe(self, lanes: Callable[[], Iterable[AccountView]]) -> None:
        """Where to look up how each configured instance stands; called when metrics are collected."""
        self._lanes.read = lanes
        for lane in lanes():
            self._calls.labels(lane.provider, self._instance(lane.instance), "ok")
            self._retries.labels(lane.provider, self._instance(lane.instance))
            self._duration.labels(lane.provider)

    def called(self, provider: str, instance: str, failure: str | None, took_s: float) -> None:
        """A call has ended; `failure` is the reason where it failed."""
        self._calls.labels(provider, self._instance(instance), self._reason(failure) or "ok").inc()
        self._duration.labels(provider).observe(took_s)

    def retried(self, provider: str, instance: str) -> None:
        """A call that failed is going to be made again."""
        self._retries.labels(provider, self._instance(instance)).inc()


class _Lanes(Collector):
    def __init__(self, instances: Instances) -> None:
        self.read: Callable[[], Iterable[AccountView]] = tuple
        self._instance = instances

    def collect(self) -> Iterable[GaugeMetricFamily]:
        circuits = GaugeMetricFamily(
            "autotag_provider_circuit_state",
            "1 for the state that an instance's circuit to a service is in",
            labels=[*_LANE, "state"],
        )
        limits = GaugeMetricFamily(
            "autotag_provider_budget_limit_calls", "Calls an instance may make in a month", labels=_LANE
        )
        used = GaugeMetricFamily(
            "autotag_provider_budget_used_calls", "Calls an instance has made this month", labels=_LANE
        )
        for lane in self.read():
            who = [lane.provider, self._instance(lane.instance)]
            for state in CIRCUITS:
                circuits.add_metric([*who, state], int(lane.circuit == state))
            if lane.calls_limit is not None:
                limits.add_metric(who, lane.calls_limit)
                if lane.calls_used is not None:
                    used.add_metric(who, lane.calls_used)
        return circuits, limits, used

"""Metrics of the cloud services: calls, retries, circuits and budgets, by provider and instance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.operations.metrics.labels import Instances, Reasons
from worker.providers.checks import CircuitState

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ACCOUNT = ["provider", "dms_instance"]
"""Not `instance`: that is Prometheus' own label for the scraped worker."""


@dataclass(frozen=True, slots=True)
class AccountView:
    """One instance's account with one service. `calls_used` is None while this month's count is unknown."""

    provider: str
    instance: str
    circuit: str
    calls_limit: int | None = None
    calls_used: int | None = None


class CloudMetrics:
    """Counts calls as they are reported; reads circuits and budgets when metrics are collected."""

    def __init__(self, registry: CollectorRegistry, reasons: Reasons, instances: Instances) -> None:
        self._reason = reasons
        self._instance = instances
        self._calls = Counter(
            "autotag_provider_calls",
            "Calls made to a cloud service; outcome is ok or the reason of the failure",
            [*_ACCOUNT, "outcome"],
            registry=registry,
        )
        self._retries = Counter(
            "autotag_provider_retries", "Calls made again after a failure that may pass", _ACCOUNT, registry=registry
        )
        self._put_off = Counter(
            "autotag_provider_put_off",
            "Times that an image was sent back to wait for a limit or a pause, which is no attempt",
            [*_ACCOUNT, "reason"],
            registry=registry,
        )
        self._duration = Histogram(
            "autotag_provider_call_duration_seconds",
            "Time of one call to a cloud service",
            ["provider"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._accounts = _AccountCollector(instances)
        registry.register(self._accounts)

    def observe(self, accounts: Callable[[], Iterable[AccountView]]) -> None:
        """Read the accounts from `accounts` from now on, at every collection; create the series of the present ones."""
        self._accounts.read = accounts
        for account in accounts():
            self._calls.labels(account.provider, self._instance(account.instance), "ok")
            self._retries.labels(account.provider, self._instance(account.instance))
            self._put_off.labels(account.provider, self._instance(account.instance), "calls_at_once")
            self._duration.labels(account.provider)

    def called(self, provider: str, instance: str, failure: str | None, took_s: float) -> None:
        """A call has ended; `failure` is the reason code if it failed."""
        self._calls.labels(provider, self._instance(instance), self._reason(failure) or "ok").inc()
        self._duration.labels(provider).observe(took_s)

    def retried(self, provider: str, instance: str) -> None:
        """A call that failed is going to be made again."""
        self._retries.labels(provider, self._instance(instance)).inc()

    def put_off(self, provider: str, instance: str, reason: str) -> None:
        """An image waits for a limit instead of being sent."""
        self._put_off.labels(provider, self._instance(instance), self._reason(reason)).inc()


class _AccountCollector(Collector):
    def __init__(self, instances: Instances) -> None:
        self.read: Callable[[], Iterable[AccountView]] = tuple
        self._instance = instances

    def collect(self) -> Iterable[GaugeMetricFamily]:
        circuits = GaugeMetricFamily(
            "autotag_provider_circuit_state",
            "1 for the state that an instance's circuit to a service is in",
            labels=[*_ACCOUNT, "state"],
        )
        limits = GaugeMetricFamily(
            "autotag_provider_budget_limit_calls", "Calls an instance may make in a month", labels=_ACCOUNT
        )
        used = GaugeMetricFamily(
            "autotag_provider_budget_used_calls", "Calls an instance has made this month", labels=_ACCOUNT
        )
        for account in self.read():
            labels = [account.provider, self._instance(account.instance)]
            for state in CircuitState:
                circuits.add_metric([*labels, state.value], int(account.circuit == state))
            if account.calls_limit is not None:
                limits.add_metric(labels, account.calls_limit)
                if account.calls_used is not None:
                    used.add_metric(labels, account.calls_used)
        return circuits, limits, used

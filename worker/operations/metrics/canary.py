"""Metrics of the canary: what the models said of a known picture."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from worker.tagging.canary.expected import CanaryFault, Finding


class CanaryMetrics:
    """Set after each canary. The models' series are absent before the first, and where there are none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ok = Gauge(
            "autotag_canary_ok", "1 while a model says of a known picture what it should", ["model"], registry=registry
        )
        self._confidence = Gauge(
            "autotag_canary_confidence",
            "A model's last confidence in what a known picture shows",
            ["model"],
            registry=registry,
        )
        self._duration = Gauge(
            "autotag_canary_duration_seconds", "How long the last canary took, waiting included", registry=registry
        )
        self._failures = Counter(
            "autotag_canary_failures", "Canaries that were not as expected", ["reason"], registry=registry
        )
        for fault in CanaryFault:
            self._failures.labels(fault.value)

    def found(self, findings: Iterable[Finding], took_s: float) -> None:
        """The models have answered."""
        for each in findings:
            self._ok.labels(each.model).set(each.fault is None)
            self._confidence.labels(each.model).set(each.value)
        self._duration.set(took_s)

    def failed(self, models: Iterable[str], took_s: float) -> None:
        """No model has answered."""
        for model in models:
            self._ok.labels(model).set(0)
        self._duration.set(took_s)

    def count(self, fault: CanaryFault) -> None:
        """A canary was not as expected, for this reason."""
        self._failures.labels(fault.value).inc()

    def forget(self) -> None:
        """Other models are in use from now on, or none."""
        self._ok.clear()
        self._confidence.clear()

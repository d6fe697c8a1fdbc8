"""Metrics of the shadow: how often a candidate model's tags are others than those in use."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from worker.operations.history.comparisons import Comparison
from worker.operations.metrics.labels import Reasons

SKIPPED = ("busy", "not_ready", "late", "failed")


class ShadowMetrics:
    """Counted by the shadow."""

    def __init__(self, registry: CollectorRegistry, reasons: Reasons) -> None:
        self._reason = reasons
        self._images = Counter(
            "autotag_shadow_images",
            "Images that a candidate model has tagged beside the real one",
            ["outcome"],
            registry=registry,
        )
        self._skipped = Counter(
            "autotag_shadow_skipped", "Images of the share that were not compared", ["reason"], registry=registry
        )
        self._tags = Counter(
            "autotag_shadow_tags", "What would become of tags with the candidate model", ["change"], registry=registry
        )
        for outcome in ("same", "different"):
            self._images.labels(outcome)
        for reason in SKIPPED:
            self._skipped.labels(reason)
        for change in ("added", "removed", "same"):
            self._tags.labels(change)

    def compared(self, comparison: Comparison) -> None:
        """An image was compared."""
        self._images.labels("same" if comparison.alike else "different").inc()
        for change in ("added", "removed", "same"):
            self._tags.labels(change).inc(len(comparison.keys[change]))

    def skipped(self, reason: str) -> None:
        """An image was not."""
        self._skipped.labels(self._reason(reason)).inc()

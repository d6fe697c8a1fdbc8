"""Metrics of what is written to targets."""

from __future__ import annotations

from collections import Counter as Counts

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from worker.connect.ledger import TagLedger
from worker.operations.metrics.labels import OTHER, Reasons

_MOST_REMOVED = 500
"""Pairs of label and provider of each connection that have a series of their own."""
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class TargetMetrics:
    """Of all connections."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.outcomes = Counter(
            "autotag_connect_results",
            "Results of a connection, by what became of them",
            ["connection", "outcome"],
            registry=registry,
        )
        self.added = Counter("autotag_connect_tags_added", "Tags written", ["connection"], registry=registry)
        self.removed = Counter("autotag_connect_tags_removed", "Tags taken away", ["connection"], registry=registry)
        self.removed_by_people = Counter(
            "autotag_connect_tags_removed_by_people",
            "Tags of ours that people have removed, by label and provider; rare ones beyond 500 are `other`",
            ["connection", "label", "provider"],
            registry=registry,
        )
        self.write_s = Histogram(
            "autotag_connect_write_seconds",
            "Reading, merging and writing one asset",
            ["connection"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.age_s = Histogram(
            "autotag_connect_result_age_seconds",
            "From the writing of a result by the service to its tags in the target",
            ["connection"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.paused = Gauge(
            "autotag_connect_target_paused",
            "1 while nothing is written to a target, by reason",
            ["connection", "reason"],
            registry=registry,
        )
        self.ledger_fault = Gauge(
            "autotag_connect_ledger_fault",
            "1 while the ledger cannot be written, and tags are only added",
            registry=registry,
        )
        self.reasons = Reasons()

    def watch(self, ledger: TagLedger) -> None:
        """Show the state of a ledger."""
        self.ledger_fault.set_function(lambda: float(ledger.fault is not None))

    def of(self, connection: str) -> ConnectionMetrics:
        """Those of one connection."""
        return ConnectionMetrics(self, connection)


class ConnectionMetrics:
    """Metrics of one connection's target."""

    def __init__(self, metrics: TargetMetrics, connection: str) -> None:
        self._metrics = metrics
        self._connection = connection
        self._removed: set[tuple[str, str]] = set()
        self._paused: str | None = None
        self.totals: Counts[str] = Counts()
        """Results by outcome since the start, and `removed_by_people`: tags."""
        metrics.added.labels(connection)
        metrics.removed.labels(connection)
        self._write_s = metrics.write_s.labels(connection)
        self._age_s = metrics.age_s.labels(connection)

    def on_outcome(self, outcome: str) -> None:
        """What became of one result."""
        self._metrics.outcomes.labels(self._connection, outcome).inc()
        self.totals[outcome] += 1

    def on_tags(self, added: int, removed: int) -> None:
        """A target was changed."""
        self._metrics.added.labels(self._connection).inc(added)
        self._metrics.removed.labels(self._connection).inc(removed)

    def on_removed_by_people(self, label: str, provider: str) -> None:
        """People have removed a tag of ours."""
        pair = (label[:100], provider)
        if pair not in self._removed and len(self._removed) >= _MOST_REMOVED:
            pair = (OTHER, OTHER)
        self._removed.add(pair)
        self._metrics.removed_by_people.labels(self._connection, *pair).inc()
        self.totals["removed_by_people"] += 1

    def on_write(self, took_s: float, age_s: float) -> None:
        """An asset was looked at, and changed where that was needed."""
        self._write_s.observe(took_s)
        self._age_s.observe(max(0.0, age_s))

    def on_pause(self, reason: str | None) -> None:
        """Nothing is written for a reason, or no longer (None)."""
        if self._paused is not None:
            self._metrics.paused.labels(self._connection, self._paused).set(0)
        self._paused = self._metrics.reasons(reason) if reason is not None else None
        if self._paused is not None:
            self._metrics.paused.labels(self._connection, self._paused).set(1)

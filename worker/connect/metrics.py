"""The connector's own metrics of what comes in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class InMetrics:
    """Uploads, and what inlets and pollers could not do; in a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.uploads = Counter(
            "autotag_connect_uploads",
            "What systems said about images: published, seen before, passed_over (not accepted), refused (unreadable).",
            ["connection", "outcome"],
            registry=registry,
        )
        self.inlet_refusals = Counter(
            "autotag_connect_inlet_refusals",
            "Requests to an inlet that were refused as a whole, by reason.",
            ["connection", "reason"],
            registry=registry,
        )
        self.polls = Counter(
            "autotag_connect_polls",
            "Listings, by how they ended.",
            ["connection", "outcome"],
            registry=registry,
        )
        self.last_poll_s = Gauge(
            "autotag_connect_last_complete_poll_timestamp_seconds",
            "When a poller last listed everything that was new.",
            ["connection"],
            registry=registry,
        )
        self.poll_trouble = Gauge(
            "autotag_connect_poll_trouble",
            "1 while a poller does not get on, by reason.",
            ["connection", "reason"],
            registry=registry,
        )

"""All metrics in one registry."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from worker import __version__
from worker.operations.connections import Refusal
from worker.operations.metrics.broker import BrokerMetrics
from worker.operations.metrics.canary import CanaryMetrics
from worker.operations.metrics.children import ChildMetrics
from worker.operations.metrics.cloud import CloudMetrics
from worker.operations.metrics.events import EventMetrics
from worker.operations.metrics.labels import Instances, Reasons
from worker.operations.metrics.shadow import ShadowMetrics


class Metrics(EventMetrics):
    """The metrics of events are its own; those of the broker, children and cloud services are its parts."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created` doubles the series, and no query needs it
        self.registry = CollectorRegistry()
        reasons = Reasons()
        self.instances = Instances()
        super().__init__(self.registry, reasons, self.instances)
        self.broker = BrokerMetrics(self.registry)
        self.children = ChildMetrics(self.registry, reasons)
        self.canary = CanaryMetrics(self.registry)
        self.shadow = ShadowMetrics(self.registry, reasons)
        self.cloud = CloudMetrics(self.registry, reasons, self.instances)
        self._loop_lag = Gauge(
            "autotag_event_loop_lag_seconds", "By how much the event loop's last beat was late", registry=self.registry
        )
        self._ready = Gauge("autotag_ready", "1 while events are taken and could be answered", registry=self.registry)
        self._refused = Counter(
            "autotag_http_connections_refused",
            "HTTP connections that were closed at a limit or a deadline",
            ["reason"],
            registry=self.registry,
        )
        for why in Refusal:
            self._refused.labels(why.value)
        self._history_lost = Counter(
            "autotag_history_lost", "Ended events that could not be kept in the history on disk", registry=self.registry
        )
        self._left_out = Gauge(
            "autotag_settings_left_out",
            "Values of the overlay that this version refuses and does without",
            registry=self.registry,
        )
        build = Gauge("autotag_build_info", "What runs", ["version", "python"], registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)
        self._model = Gauge(
            "autotag_model_info", "The model package in use", ["name", "identity"], registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def on_settings_left_out(self, number: int) -> None:
        """So many values of the overlay have no effect."""
        self._left_out.set(number)

    def on_heartbeat(self, ready: bool, loop_lag_s: float) -> None:
        """Readiness and loop lag at a heartbeat."""
        self._ready.set(ready)
        self._loop_lag.set(max(0.0, loop_lag_s))

    def http_connection_refused(self, why: Refusal) -> None:
        """An HTTP connection was closed at a limit or a deadline."""
        self._refused.labels(why.value).inc()

    def history_lost(self, number: int) -> None:
        """Ended events could not be kept in the history on disk. May be called from any thread."""
        self._history_lost.inc(number)

    def use_model(self, name: str, identity: str) -> None:
        """The model package in use from now on."""
        self._model.clear()
        self._model.labels(name, identity).set(1)

"""Metrics of the connection to RabbitMQ and of the queues' lengths."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.amqp.state import BrokerPause, BrokerState
from worker.amqp.topology import Lane
from worker.operations.health.status import Pause

STALE_AFTER_S = 60.0
"""Depths that have not been updated for this long are not exported: no number is better than an old one."""


class BrokerMetrics:
    """Updated when the broker's state changes, at every heartbeat, and when queue depths have been polled."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._consuming = Gauge(
            "autotag_consumer_active", "1 while events are taken from a lane's queue", ["lane"], registry=registry
        )
        self._connected = Gauge("autotag_broker_connected", "1 while connected to RabbitMQ", registry=registry)
        self._info = Gauge("autotag_broker_info", "The broker", ["version"], registry=registry)
        self._blocked = Gauge("autotag_broker_blocked", "1 while RabbitMQ blocks publishing", registry=registry)
        self._reconnects = Counter("autotag_broker_reconnects", "Connections after the first", registry=registry)
        self._unconfirmed = Gauge(
            "autotag_broker_unconfirmed_messages", "Published, not yet confirmed", registry=registry
        )
        self._unsettled = Gauge("autotag_broker_unsettled_deliveries", "Delivered, not yet settled", registry=registry)
        self._unmarked = Counter(
            "autotag_unmarked_deliveries",
            "Deliveries with headers of ours that did not carry our mark; the headers were dropped",
            registry=registry,
        )
        self._counted_reconnects = 0
        self._counted_unmarked = 0
        self._depth_collector = _DepthCollector()
        registry.register(self._depth_collector)
        self._pause_collector = _PauseCollector()
        registry.register(self._pause_collector)
        for lane in Lane:
            self._consuming.labels(lane.value).set(0)

    def on_state(self, state: BrokerState) -> None:
        """The state of the connection to RabbitMQ changed."""
        for lane in Lane:
            self._consuming.labels(lane.value).set(lane in state.lanes)
        self._connected.set(state.connected)
        self._info.clear()
        if state.version is not None:
            self._info.labels(state.version).set(1)
        self._blocked.set(state.blocked is not None)
        self._pause_collector.pauses = state.pauses
        self._reconnects.inc(state.reconnects - self._counted_reconnects)
        self._counted_reconnects = state.reconnects
        self.sample(state)

    def sample(self, state: BrokerState) -> None:
        """Update the numbers of messages, whose changes are not reported as changes of the state."""
        self._unconfirmed.set(state.unconfirmed)
        self._unsettled.set(state.unsettled)
        if state.unmarked > self._counted_unmarked:  # a snapshot may be older than the last sample
            self._unmarked.inc(state.unmarked - self._counted_unmarked)
            self._counted_unmarked = state.unmarked

    def on_depths(self, messages: Mapping[str, int]) -> None:
        """The broker has reported how many messages are ready in each queue, by name without the prefix."""
        self._depth_collector.messages = dict(messages)
        self._depth_collector.updated_at_s = time.monotonic()


class _DepthCollector(Collector):
    def __init__(self) -> None:
        self.messages: dict[str, int] = {}
        self.updated_at_s = 0.0

    def collect(self) -> list[GaugeMetricFamily]:
        """One gauge per queue, unless the depths are stale."""
        family = GaugeMetricFamily(
            "autotag_queue_messages", "Messages ready in a queue, as the broker reports", labels=["queue"]
        )
        if time.monotonic() - self.updated_at_s < STALE_AFTER_S:
            for queue, messages in self.messages.items():
                family.add_metric([queue], messages)
        return [family]


class _PauseCollector(Collector):
    def __init__(self) -> None:
        self.pauses: Mapping[str, BrokerPause] = {}
        self._known = {pause.value for pause in Pause}

    def collect(self) -> list[GaugeMetricFamily]:
        """One gauge per reason: those of the service, and those of the broker that have occurred."""
        family = GaugeMetricFamily(
            "autotag_pause_seconds",
            "For how long a reason to take no events has held; 0 while it does not",
            labels=["reason"],
        )
        pauses = self.pauses
        self._known |= pauses.keys()
        for reason in sorted(self._known):
            held_s = time.monotonic() - pauses[reason].since_s if reason in pauses else 0.0
            family.add_metric([reason], held_s)
        return [family]

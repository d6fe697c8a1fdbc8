"""The connection to RabbitMQ, and how full its queues are."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.amqp.state import BrokerState
from worker.amqp.topology import Lane

FORGOTTEN_AFTER_S = 60.0
"""Depths that could not be looked up for so long are not told any more: no number is better than an old one."""


class BrokerMetrics:
    """Told whenever the broker's state changes, and of the depths of its queues every now and then."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._consuming = Gauge(
            "autotag_consumer_active", "1 while events are taken from a lane's queue", ["lane"], registry=registry
        )
        self._connected = Gauge("autotag_broker_connected", "1 while connected to RabbitMQ", registry=registry)
        self._blocked = Gauge("autotag_broker_blocked", "1 while RabbitMQ blocks publishing", registry=registry)
        self._reconnects = Counter("autotag_broker_reconnects", "Connections after the first", registry=registry)
        self._unconfirmed = Gauge(
            "autotag_broker_unconfirmed_messages", "Published, not yet confirmed", registry=registry
        )
        self._unsettled = Gauge("autotag_broker_unsettled_deliveries", "Delivered, not yet settled", registry=registry)
        self._reconnects_so_far = 0
        self._depths = _Depths()
        registry.register(self._depths)
        for lane in Lane:
            self._consuming.labels(lane.value).set(0)

    def changed(self, state: BrokerState) -> None:
        """The connection to RabbitMQ changed."""
        for lane in Lane:
            self._consuming.labels(lane.value).set(lane in state.lanes)
        self._connected.set(state.connected)
        self._blocked.set(state.blocked is not None)
        self._reconnects.inc(state.reconnects - self._reconnects_so_far)
        self._reconnects_so_far = state.reconnects
        self.counted(state)

    def counted(self, state: BrokerState) -> None:
        """The numbers in a state, which no change tells of."""
        self._unconfirmed.set(state.unconfirmed)
        self._unsettled.set(state.unsettled)

    def depths(self, messages: Mapping[str, int]) -> None:
        """Messages ready by queue, named without the prefix, as the broker has just said."""
        self._depths.messages = dict(messages)
        self._depths.known_at_s = time.monotonic()


class _Depths(Collector):
    def __init__(self) -> None:
        self.messages: dict[str, int] = {}
        self.known_at_s = 0.0

    def collect(self) -> list[GaugeMetricFamily]:
        """One gauge a queue, as long as it is known."""
        family = GaugeMetricFamily(
            "autotag_queue_messages", "Messages ready in a queue, as the broker says", labels=["queue"]
        )
        if time.monotonic() - self.known_at_s < FORGOTTEN_AFTER_S:
            for queue, messages in self.messages.items():
                family.add_metric([queue], messages)
        return [family]

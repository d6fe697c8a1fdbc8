"""The state of the connections to RabbitMQ as health checks, metrics and the status page read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from worker.amqp.topology import Lane


class BrokerPhase(StrEnum):
    """What the broker's run loop is doing."""

    CONNECTING = "connecting"
    CONSUMING = "consuming"
    PAUSED = "paused"
    """Connected, and deliberately not consuming; `BrokerState.pauses` holds the reasons."""
    WAITING = "waiting"
    """Not connected, and waiting for the next attempt; `BrokerState.last_error` holds the reason."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class BrokerPause:
    """Why nothing, or one lane's queue not, is consumed. `since_s` (monotonic) is when that began."""

    since_s: float
    message: str
    """For people: what holds, and what to do."""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """A snapshot. `since_s` (monotonic) is when `phase` began."""

    phase: BrokerPhase
    since_s: float
    wanted: frozenset[Lane] = frozenset()
    """The lanes to consume."""
    lanes: frozenset[Lane] = frozenset()
    """The lanes that are being consumed."""
    pauses: Mapping[str, BrokerPause] = field(default_factory=dict)
    """Why consuming is stopped, by reason: the service's own reasons, and those that the broker finds itself."""
    version: str | None = None
    """The broker's product and version, once it has been connected to."""
    blocked: str | None = None
    """RabbitMQ's reason while it blocks publishing."""
    last_error: str | None = None
    """Why there is no usable connection; None while there is one."""
    last_error_reason: str | None = None
    reconnects: int = 0
    """How often both connections were there again after one or both had been lost."""
    unsettled: int = 0
    """Deliveries in hand."""
    unconfirmed: int = 0
    """Messages published and not yet confirmed."""
    unmarked: int = 0
    """Deliveries since the start with headers of ours that did not carry our mark, and were dropped."""

    @property
    def connected(self) -> bool:
        """Whether both connections are there: the one that consumes, and the one that publishes."""
        return self.phase in (BrokerPhase.CONSUMING, BrokerPhase.PAUSED)

    @property
    def paused(self) -> frozenset[str]:
        """The reasons in `pauses`."""
        return frozenset(self.pauses)

    @property
    def ready(self) -> bool:
        """Whether every wanted lane is being consumed."""
        return self.phase is BrokerPhase.CONSUMING and self.lanes >= self.wanted

"""What is known about the broker at a moment, for people, health checks and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from worker.amqp.topology import Lane


class Phase(StrEnum):
    """What the broker's run loop is doing."""

    CONNECTING = "connecting"
    CONSUMING = "consuming"
    PAUSED = "paused"
    """Connected, and on purpose not consuming; `paused` says why."""
    WAITING = "waiting"
    """Not connected; `last_error` says why. It is tried again."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class BrokerState:
    """A snapshot. `since_s` (monotonic) is when `phase` began; `last_error` is what stands in the way, if anything."""

    phase: Phase
    since_s: float
    wanted: frozenset[Lane] = frozenset()
    """The lanes to consume."""
    lanes: frozenset[Lane] = frozenset()
    """The lanes that are being consumed."""
    paused: frozenset[str] = frozenset()
    blocked: str | None = None
    last_error: str | None = None
    last_error_reason: str | None = None
    reconnects: int = 0
    unsettled: int = 0
    unconfirmed: int = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection, with everything declared on it."""
        return self.phase in (Phase.CONSUMING, Phase.PAUSED)

    @property
    def ready(self) -> bool:
        """Ready is consuming, every lane that is wanted, and nothing less."""
        return self.phase is Phase.CONSUMING and self.lanes >= self.wanted

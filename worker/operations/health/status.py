"""The service's state as values: its health, why it takes no events, and the status that people and programs read.

`readiness` makes them, the control socket carries them, and `autotag status`, the health checks, systemd and the status
page show them. This module imports nothing heavy, so that the command line can read a status quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter


class Pause(StrEnum):
    """Why the service itself takes no events."""

    STOPPING = "stopping"
    STARTING = "starting"
    BY_OPERATOR = "by_operator"
    NOBODY_CAN_TAG = "nobody_can_tag"

    @property
    def message(self) -> str:
        """The same for people."""
        return _PAUSE_MESSAGES[self]


def pause_message(reason: str) -> str:
    """The message of a `Pause`, or of a reason that the connection to RabbitMQ has of its own."""
    return _PAUSE_MESSAGES.get(reason, reason)


_PAUSE_MESSAGES: dict[str, str] = {
    Pause.STOPPING: "stopping",
    Pause.STARTING: "starting",
    Pause.BY_OPERATOR: "paused by an operator; `autotag resume` goes on",
    Pause.NOBODY_CAN_TAG: "no provider can answer",
}


@dataclass(frozen=True, slots=True)
class Health:
    """The answers to the three questions that orchestrators ask; `reason` and `why_not` where it is not ready."""

    alive: bool
    loop_lag_s: float
    started: bool
    ready: bool
    reason: str | None = None
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """The connection to RabbitMQ. `lanes` are being consumed; `paused` has our reasons not to; `blocked` its own."""

    phase: str
    for_s: float
    lanes: list[str]
    paused: list[str]
    blocked: str | None
    last_error: str | None
    reconnects: int
    unsettled: int


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The model's children as a whole. `waiting` counts images; `relaunches_left` None means any number."""

    ready: bool
    disabled: str | None
    relaunches_left: int | None
    waiting: int


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """One child process. `hello` is what it reported about itself when it started."""

    name: str
    phase: str
    pid: int | None
    resident_bytes: int
    images_done: int
    hello: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProviderState:
    """One provider: how many sets of instance settings have switched it on, and why it cannot answer, if so."""

    name: str
    enabled_for: int
    unusable: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything worth knowing about a running service. `queues`: messages by queue, as far as the broker reported."""

    version: str
    started: bool
    ready: bool
    reason: str | None
    why_not: str | None
    broker: BrokerStatus
    events_in_hand: int
    queues: dict[str, int]
    model: ModelStatus | None
    children: list[ChildStatus]
    providers: list[ProviderState]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for the control socket, `--json` and `/status.json`."""
        tree: dict[str, Any] = _STATUS.dump_python(self, mode="json")
        return tree

    @classmethod
    def from_json(cls, tree: object) -> Status:
        """What `to_json` wrote. Raises ValueError where a service of another version wrote something else."""
        return _STATUS.validate_python(tree)


_STATUS = TypeAdapter(Status)

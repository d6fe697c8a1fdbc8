"""The service's state as values: its health, the reasons for taking no events, and its status.

`readiness` builds them, the control socket transfers them, and `autotag status`, the health checks, systemd and the
status page show them. This module imports nothing heavy, so that the command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter


class Pause(StrEnum):
    """A reason of the service's own to take no events."""

    STOPPING = "stopping"
    STARTING = "starting"
    BY_OPERATOR = "by_operator"
    NOBODY_CAN_TAG = "nobody_can_tag"

    @property
    def message(self) -> str:
        """The reason for people."""
        return _PAUSE_MESSAGES[self]


def pause_message(reason: str) -> str:
    """The message of a `Pause`; any other reason is returned unchanged."""
    return _PAUSE_MESSAGES.get(reason, reason)


_PAUSE_MESSAGES: dict[str, str] = {
    Pause.STOPPING: "stopping",
    Pause.STARTING: "starting",
    Pause.BY_OPERATOR: "paused by an operator; `autotag resume` goes on",
    Pause.NOBODY_CAN_TAG: "no provider can answer",
}


@dataclass(frozen=True, slots=True)
class Health:
    """The state behind the health checks. `reason` (a code) and `why_not` (for people) are None if it is ready."""

    alive: bool
    loop_lag_s: float
    started: bool
    ready: bool
    reason: str | None = None
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """The connection to RabbitMQ. `lanes` are consumed; `paused`: our reasons not to; `blocked`: the broker's."""

    phase: str
    version: str | None
    for_s: float
    lanes: list[str]
    paused: list[str]
    blocked: str | None
    last_error: str | None
    reconnects: int
    unsettled: int


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The model's children as a whole. `waiting` counts images; `relaunches_left` is None without a limit."""

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
    """One provider: the number of instance settings that enable it, and why it cannot answer, if it cannot."""

    name: str
    enabled_for: int
    unusable: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """The full status of a running service. `queues`: messages by queue, as far as they are known."""

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
        """The status that `to_json` wrote. Raises ValueError if a service of another version wrote other fields."""
        return _STATUS.validate_python(tree)


_STATUS = TypeAdapter(Status)

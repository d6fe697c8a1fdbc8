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
    NOTHING_SWITCHED_ON = "nothing_switched_on"
    NOBODY_CAN_TAG = "nobody_can_tag"
    NO_DECODER = "no_decoder"
    MODEL_NOT_READY = "model_not_ready"
    LEFT_TO_OTHERS = "left_to_others"

    @property
    def message(self) -> str:
        """The reason for people, where there is nothing to add to it."""
        return _PAUSE_MESSAGES[self]


_PAUSE_MESSAGES: dict[str, str] = {
    Pause.STOPPING: "stopping",
    Pause.STARTING: "starting: the model is being made ready",
    Pause.BY_OPERATOR: "paused by an operator; `autotag resume` goes on",
    Pause.NOTHING_SWITCHED_ON: "no provider is switched on, for no instance and not in the defaults: events wait in "
    "their queue; set `defaults.tensorflow.enabled = true`, or `while_nothing_is_switched_on = 'skip'` to skip them",
    Pause.NOBODY_CAN_TAG: "no provider can answer",
    Pause.NO_DECODER: "no decoder is running; they are started again and again, and the log says why they end",
    Pause.MODEL_NOT_READY: "the model is not ready",
    Pause.LEFT_TO_OTHERS: "events are left to other workers, which may have what this one lacks",
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
class PauseStatus:
    """A reason to take no events: a fixed word, a sentence for people, and for how long it has held."""

    reason: str
    message: str
    for_s: float


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """The connections to RabbitMQ. `lanes` are consumed; `pauses`: why not; `blocked`: RabbitMQ's words."""

    phase: str
    version: str | None
    for_s: float
    lanes: list[str]
    pauses: list[PauseStatus]
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
class CanaryModelStatus:
    """What one model said of the canary's picture: its confidence in the term that is expected from `low` to `high`.

    `fault`: what is wrong, a fixed word; None if nothing is. `best`: what it was surest of, for people.
    """

    name: str
    expected: str
    low: float
    high: float
    confidence: float
    fault: str | None
    best: str


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """The last canary: whether all was as expected, and if not, why; for how long it has been over, and what it took.

    `fault` is a fixed word. `models` is empty where none has answered.
    """

    fault: str | None
    message: str
    ago_s: float
    took_s: float
    models: list[CanaryModelStatus]


@dataclass(frozen=True, slots=True)
class Status:
    """The full status of a running service. `queues`: messages by queue, as far as they are known.

    `canary`: the last one; None before the first, and where there are none.
    """

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
    canary: CanaryStatus | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for the control socket, `--json` and `/status.json`."""
        tree: dict[str, Any] = _STATUS.dump_python(self, mode="json")
        return tree

    @classmethod
    def from_json(cls, tree: object) -> Status:
        """The status that `to_json` wrote. Raises ValueError if a service of another version wrote other fields."""
        return _STATUS.validate_python(tree)


_STATUS = TypeAdapter(Status)

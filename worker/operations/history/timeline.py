"""States over time: when a model child ran, backed off or was disabled, and when events were taken."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from worker.supervision.lifecycle import BecameDisabled, BecameReady, BecameStopped, Crashed, Notice, Relaunching

_MAXIMUM_CHANGES = 240


class State(StrEnum):
    """The state of a model child, or of taking events."""

    RUNNING = "running"
    STARTING = "starting"
    BACK_OFF = "back-off"
    PAUSED = "paused"
    DISABLED = "disabled"
    DISCONNECTED = "disconnected"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Interval:
    """A period, from `from_s` to `to_s`, in one state."""

    state: State
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that happened to `source` (a child's name, `events` or `operator`).

    `kind` is a fixed word (`crash`, `ready`, …), `description` a clause for people.
    """

    at_s: float
    kind: str
    source: str
    description: str


class Timeline:
    """A sequence of states with the times of their changes, bounded in length."""

    def __init__(self, state: State, now_s: float) -> None:
        self._changes: deque[tuple[float, State]] = deque([(now_s, state)], maxlen=_MAXIMUM_CHANGES)

    def state(self, now_s: float) -> State:
        """The state at `now_s`. A change may be scheduled for later."""
        return next((state for at_s, state in reversed(self._changes) if at_s <= now_s), self._changes[0][1])

    def change(self, state: State, at_s: float) -> None:
        """Enter `state` at `at_s`. Changes that were scheduled for later are cancelled."""
        while len(self._changes) > 1 and self._changes[-1][0] >= at_s:
            self._changes.pop()
        if self._changes[-1][1] is not state:
            self._changes.append((at_s, state))

    def schedule(self, state: State, at_s: float) -> None:
        """Enter `state` at `at_s`, unless another change comes first."""
        self._changes.append((at_s, state))

    def intervals(self, from_s: float, to_s: float) -> list[Interval]:
        """The periods between two times, clipped to them."""
        changes = [change for change in self._changes if change[0] < to_s]
        ends = [*(at_s for at_s, _ in changes[1:]), to_s]
        return [
            Interval(state, max(began_s, from_s), end_s)
            for (began_s, state), end_s in zip(changes, ends, strict=True)
            if end_s > from_s and end_s > began_s
        ]


class ChildTimeline(Timeline):
    """The states of one supervised child, derived from the supervisor's notices."""

    def __init__(self, now_s: float) -> None:
        super().__init__(State.STARTING, now_s)
        self._successors = 0

    def on_notice(self, notice: Notice, now_s: float) -> tuple[str, str] | None:
        """Apply a notice. Returns kind and description of the occurrence, if it is one worth showing."""
        match notice:
            case BecameReady():
                if self.state(now_s) is State.RUNNING:  # its successor: the old child is asked to stop only now
                    self._successors += 1
                    return "replaced", "replaced as planned"
                self.change(State.RUNNING, now_s)
                return "ready", "ready"
            case Crashed(cause, counted, left):
                self.change(State.BACK_OFF, now_s)
                budget = "" if not counted or left is None else f" ({left} relaunches left)"
                return "crash", f"crashed: {cause.message}{budget}"
            case Relaunching(delay_s):
                self.change(State.BACK_OFF, now_s)
                self.schedule(State.STARTING, now_s + delay_s)
                return ("relaunch", f"relaunched after {delay_s:g} s") if delay_s else None
            case BecameDisabled(cause):
                self.change(State.DISABLED, now_s)
                return "disabled", f"disabled: {cause.message}"
            case BecameStopped():
                if self._successors:
                    self._successors -= 1
                else:
                    self.change(State.STOPPED, now_s)
        return None

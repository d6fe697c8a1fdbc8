"""States over time: when the model child ran, backed off or was disabled, and when events were taken."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from worker.supervision.lifecycle import BecameDisabled, BecameReady, BecameStopped, Crashed, Notice, Relaunching

_MOST_INTERVALS = 240


class State(StrEnum):
    """What something was doing."""

    RUNNING = "running"
    STARTING = "starting"
    BACK_OFF = "back-off"
    PAUSED = "paused"
    DISABLED = "disabled"
    DISCONNECTED = "disconnected"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Interval:
    """`state` lasted from `from_s` to `to_s`."""

    state: State
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Something happened. `kind` is a fixed word (`crash`, `ready`, …), `words` a clause for people."""

    at_s: float
    kind: str
    who: str
    words: str


class Timeline:
    """The states of one thing, one after the other."""

    def __init__(self, state: State, now_s: float) -> None:
        self._changes: deque[tuple[float, State]] = deque([(now_s, state)], maxlen=_MOST_INTERVALS)

    def state(self, now_s: float) -> State:
        """The state at `now_s`; a change may have been announced for later."""
        return next((state for at_s, state in reversed(self._changes) if at_s <= now_s), self._changes[0][1])

    def change(self, state: State, at_s: float) -> None:
        """From `at_s` on it is in `state`. Changes that had been announced for later are forgotten."""
        while len(self._changes) > 1 and self._changes[-1][0] >= at_s:
            self._changes.pop()
        if self._changes[-1][1] is not state:
            self._changes.append((at_s, state))

    def announce(self, state: State, at_s: float) -> None:
        """It will be in `state` from `at_s` on, unless another change comes first."""
        self._changes.append((at_s, state))

    def intervals(self, from_s: float, to_s: float) -> list[Interval]:
        """What it did between two times."""
        changes = [change for change in self._changes if change[0] < to_s]
        ends = [*(at_s for at_s, _ in changes[1:]), to_s]
        return [
            Interval(state, max(began_s, from_s), end_s)
            for (began_s, state), end_s in zip(changes, ends, strict=True)
            if end_s > from_s and end_s > began_s
        ]


class ChildTimeline(Timeline):
    """The states of one supervised child, made out from the notices in its life."""

    def __init__(self, now_s: float) -> None:
        super().__init__(State.STARTING, now_s)
        self._successors = 0

    def told(self, notice: Notice, now_s: float) -> tuple[str, str] | None:
        """Take a notice; kind and words of the moment that it makes, if it makes one."""
        match notice:
            case BecameReady():
                if self.state(now_s) is State.RUNNING:  # its successor: the old one is asked to stop only now
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
                self.announce(State.STARTING, now_s + delay_s)
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

"""How the service stands: the one truth that `autotag status`, the health checks, systemd and the status page tell."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from worker import __version__
from worker.amqp.state import BrokerState
from worker.operations.history import State
from worker.settings import Settings
from worker.engine import Workshop, instances

ALIVE_WITHIN_S = 10.0
"""A loop that has not turned for so long is not alive."""


class Pause(StrEnum):
    """Why the service itself takes no events, in words for people; the name in lower case is the word for programs."""

    STOPPING = "stopping"
    STARTING = "starting"
    BY_OPERATOR = "paused by an operator; `autotag resume` goes on"
    NOBODY_CAN_TAG = "no provider can answer"


@dataclass(frozen=True, slots=True)
class Health:
    """The answers to the three questions that orchestrators ask; `reason` and `why_not` where it is not ready."""

    alive: bool
    loop_lag_s: float
    started: bool
    ready: bool
    reason: str | None = None
    why_not: str | None = None


def health_of(
    state: BrokerState, workshop: Workshop | None, settings: Settings, *, started: bool, loop_lag_s: float
) -> Health:
    """Ready is consuming, with somebody there who could answer, and nothing less."""
    why = _why_not_ready(state, workshop, settings, started)
    reason, words = why or (None, None)
    return Health(loop_lag_s < ALIVE_WITHIN_S, loop_lag_s, started, why is None, reason, words)


def has_started(workshop: Workshop | None) -> bool:
    """Whether a start is over: the model, where one is wanted, is ready for its first image or known to be no use."""
    if workshop is None:
        return False
    model = workshop.model
    return model is None or model.ready or model.disabled_reason is not None


def status_of(
    state: BrokerState,
    workshop: Workshop | None,
    settings: Settings,
    health: Health,
    *,
    in_hand: int,
    depths: Mapping[str, int],
) -> dict[str, object]:
    """Everything worth knowing, as JSON. `depths`: messages by queue, as far as the broker told."""
    children = [] if workshop is None else workshop.decoders.states()
    model: dict[str, object] | None = None
    if workshop is not None and workshop.model is not None:
        children = [*workshop.model.states(), *children]
        model = {
            "ready": workshop.model.ready,
            "disabled": workshop.model.disabled_reason,
            "relaunches_left": workshop.model.relaunches_left,
            "waiting": workshop.model.waiting,
        }
    return {
        "version": __version__,
        "started": health.started,
        "ready": health.ready,
        "reason": health.reason,
        "why_not": health.why_not,
        "broker": {
            "phase": state.phase.value,
            "for_s": round(time.monotonic() - state.since_s, 1),
            "lanes": sorted(state.lanes),
            "paused": sorted(state.paused),
            "blocked": state.blocked,
            "last_error": state.last_error,
            "reconnects": state.reconnects,
            "unsettled": state.unsettled,
        },
        "events_in_hand": in_hand,
        "queues": dict(depths),
        "model": model,
        "children": [asdict(child) for child in children],
        "providers": _providers(workshop, settings),
    }


def _why_not_ready(
    state: BrokerState, workshop: Workshop | None, settings: Settings, started: bool
) -> tuple[str, str] | None:
    """A word for programs and words for people; what an operator can do something about comes first."""
    if Pause.STOPPING in state.paused:
        return _told(Pause.STOPPING)
    if Pause.BY_OPERATOR in state.paused:
        return _told(Pause.BY_OPERATOR)
    if state.blocked:
        return "broker_blocked", f"RabbitMQ has blocked publishing ({state.blocked})"
    if not state.connected:
        return state.last_error_reason or "broker_connecting", state.last_error or "connecting to RabbitMQ"
    if Pause.NOBODY_CAN_TAG in state.paused:
        why = workshop.why_nothing_can_be_tagged(settings) if workshop else None
        return _told(Pause.NOBODY_CAN_TAG, f" ({why})" if why else "")
    if not started:
        return _told(Pause.STARTING, ": the model is being made ready")
    if not state.ready:
        why_not = "; ".join(sorted(state.paused)) or state.last_error
        return "not_consuming", why_not or "RabbitMQ has not confirmed a consumer on every lane yet"
    return None


def taking(state: BrokerState) -> tuple[State, str]:
    """Whether events are taken, for the record of the last while, and in words why not."""
    if not state.connected:
        return (
            (State.DISCONNECTED, state.last_error) if state.last_error else (State.STARTING, "connecting to RabbitMQ")
        )
    for pause, kind in _PAUSED.items():
        if pause in state.paused:
            return kind, pause.value
    return State.RUNNING, "events are taken"


_PAUSED = {
    Pause.STOPPING: State.STOPPED,
    Pause.BY_OPERATOR: State.PAUSED,
    Pause.NOBODY_CAN_TAG: State.DISABLED,
    Pause.STARTING: State.STARTING,
}


def _told(pause: Pause, more: str = "") -> tuple[str, str]:
    return pause.name.lower(), pause.value + more


def _providers(workshop: Workshop | None, settings: Settings) -> list[dict[str, object]]:
    """Each provider: how many sets of instance settings have it switched on, and why it can't answer, if so."""
    if workshop is None:
        return []
    told: list[dict[str, object]] = []
    for provider in workshop.providers:
        users = [each for each in instances(settings) if provider.enabled(each)]
        reasons = [provider.unusable(each) for each in users]
        unusable = None if not reasons or None in reasons else reasons[0]
        told.append({"name": provider.name, "enabled_for": len(users), "unusable": unusable})
    return told

"""The assessment of the service that its status, health checks, systemd and the status page all use."""

from __future__ import annotations

import time
from collections.abc import Mapping

from worker import __version__
from worker.amqp.state import BrokerState
from worker.engine import Active, Engine
from worker.operations.health.status import (
    BrokerStatus,
    ChildStatus,
    Health,
    ModelStatus,
    Pause,
    ProviderState,
    Status,
    pause_message,
)
from worker.operations.history import State
from worker.supervision.pool import ChildState

ALIVE_WITHIN_S = 10.0
"""An event loop that has not run for this long is not alive."""


def health_of(state: BrokerState, active: Active | None, *, started: bool, loop_lag_s: float) -> Health:
    """The service's health. Ready means consuming, with a provider that could answer."""
    problem = _why_not_ready(state, active, started)
    reason, message = problem or (None, None)
    return Health(loop_lag_s < ALIVE_WITHIN_S, loop_lag_s, started, problem is None, reason, message)


def has_started(engine: Engine | None) -> bool:
    """Whether the start is complete: the model, if one is used, is ready for images or known to be unusable."""
    if engine is None:
        return False
    model = engine.model
    return model is None or model.ready or model.disabled_reason is not None


def status_of(
    state: BrokerState, active: Active | None, health: Health, *, in_hand: int, depths: Mapping[str, int]
) -> Status:
    """The status now. `in_hand`: deliveries being handled; `depths`: messages by queue, as far as they are known."""
    engine = active.engine if active is not None else None
    model = engine.model if engine is not None else None
    children = [*(model.states() if model else ()), *(engine.decoders.states() if engine else ())]
    return Status(
        version=__version__,
        started=health.started,
        ready=health.ready,
        reason=health.reason,
        why_not=health.why_not,
        broker=BrokerStatus(
            phase=state.phase.value,
            version=state.version,
            for_s=round(time.monotonic() - state.since_s, 1),
            lanes=sorted(state.lanes),
            paused=sorted(state.paused),
            blocked=state.blocked,
            last_error=state.last_error,
            reconnects=state.reconnects,
            unsettled=state.unsettled,
        ),
        events_in_hand=in_hand,
        queues=dict(depths),
        model=None
        if model is None
        else ModelStatus(model.ready, model.disabled_reason, model.relaunches_left, model.waiting),
        children=[_child(each) for each in children],
        providers=_providers(active),
    )


def consuming_state(state: BrokerState) -> tuple[State, str]:
    """Whether events are taken, as a state for the recent history, and the reason for people."""
    if not state.connected:
        if state.last_error:
            return State.DISCONNECTED, state.last_error
        return State.STARTING, "connecting to RabbitMQ"
    for pause, consuming in _STATE_OF_PAUSE.items():
        if pause in state.paused:
            return consuming, pause.message
    return State.RUNNING, "events are taken"


_STATE_OF_PAUSE = {
    Pause.STOPPING: State.STOPPED,
    Pause.BY_OPERATOR: State.PAUSED,
    Pause.NOBODY_CAN_TAG: State.DISABLED,
    Pause.STARTING: State.STARTING,
}


def _why_not_ready(state: BrokerState, active: Active | None, started: bool) -> tuple[str, str] | None:
    """A reason code and a message for people. Reasons that an operator can remove come first."""
    for pause in (Pause.STOPPING, Pause.BY_OPERATOR):
        if pause in state.paused:
            return pause.value, pause.message
    if state.blocked:
        return "broker_blocked", f"RabbitMQ has blocked publishing ({state.blocked})"
    if not state.connected:
        return state.last_error_reason or "broker_connecting", state.last_error or "connecting to RabbitMQ"
    if Pause.NOBODY_CAN_TAG in state.paused:
        why = active.why_nothing_can_be_tagged() if active else None
        return Pause.NOBODY_CAN_TAG.value, Pause.NOBODY_CAN_TAG.message + (f" ({why})" if why else "")
    if not started:
        return Pause.STARTING.value, f"{Pause.STARTING.message}: the model is being made ready"
    if not state.ready:
        paused = "; ".join(map(pause_message, sorted(state.paused)))
        return "not_consuming", paused or state.last_error or "RabbitMQ has not confirmed a consumer on every lane yet"
    return None


def _child(child: ChildState) -> ChildStatus:
    return ChildStatus(child.name, child.phase, child.pid, child.resident_bytes, child.images_done, child.hello)


def _providers(active: Active | None) -> list[ProviderState]:
    if active is None:
        return []
    return [
        ProviderState(each.name, active.number_of_users(each), active.why_unusable(each))
        for each in active.engine.providers
    ]

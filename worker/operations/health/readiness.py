"""The assessment of the service that its status, health checks, systemd and the status page all use."""

from __future__ import annotations

import time
from collections.abc import Mapping

from worker import __version__
from worker.amqp.state import BrokerPause, BrokerState
from worker.engine import Active, Engine
from worker.operations.health.status import (
    BrokerStatus,
    CanaryStatus,
    ChildStatus,
    Health,
    ModelStatus,
    Pause,
    PauseStatus,
    ProviderState,
    Status,
)
from worker.operations.history import State
from worker.supervision.pool import ChildState

ALIVE_WITHIN_S = 10.0
"""An event loop that has not run for this long is not alive."""


def health_of(state: BrokerState, *, started: bool, loop_lag_s: float) -> Health:
    """The service's health. Ready means that every lane is consumed, and nothing speaks against it."""
    problem = _why_not_ready(state, started)
    reason, message = problem or (None, None)
    return Health(loop_lag_s < ALIVE_WITHIN_S, loop_lag_s, started, problem is None, reason, message)


def has_started(engine: Engine | None) -> bool:
    """Whether the start is complete: the model, if one is used, is ready for images or known to be unusable."""
    if engine is None:
        return False
    model = engine.model
    return model is None or model.ready or model.disabled_reason is not None


def status_of(
    state: BrokerState,
    active: Active | None,
    health: Health,
    *,
    in_hand: int,
    depths: Mapping[str, int],
    canary: CanaryStatus | None = None,
) -> Status:
    """The status now. `in_hand`: deliveries being handled; `depths`: messages by queue, as far as they are known."""
    engine = active.engine if active is not None else None
    model = engine.model if engine is not None else None
    shadow = engine.shadow.pool if engine is not None and engine.shadow is not None else None
    pools = [pool for pool in (model, shadow, engine.decoders if engine else None) if pool is not None]
    children = [state for pool in pools for state in pool.states()]
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
            pauses=[
                PauseStatus(reason, pause.message, round(time.monotonic() - pause.since_s, 1))
                for reason, pause in _by_urgency(state)
            ],
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
        canary=canary,
    )


def consuming_state(state: BrokerState) -> tuple[State, str]:
    """Whether events are taken, as a state for the recent history, and the reason for people."""
    if not state.connected:
        if state.last_error:
            return State.DISCONNECTED, state.last_error
        return State.STARTING, "connecting to RabbitMQ"
    for reason, pause in _by_urgency(state):
        return _STATE_OF_PAUSE.get(reason, State.PAUSED), pause.message
    return State.RUNNING, "events are taken"


_STATE_OF_PAUSE: dict[str, State] = {
    Pause.STOPPING: State.STOPPED,
    Pause.NOBODY_CAN_TAG: State.DISABLED,
    Pause.STARTING: State.STARTING,
}
"""What the recent history calls it; any other reason is a pause."""

_FIRST = (Pause.STOPPING, Pause.BY_OPERATOR)
_LAST = (
    Pause.NOTHING_SWITCHED_ON,
    Pause.NOBODY_CAN_TAG,
    Pause.NO_DECODER,
    Pause.MODEL_NOT_READY,
    Pause.LEFT_TO_OTHERS,
    Pause.STARTING,
)
"""Where several reasons hold: what somebody asked for comes first, then what the broker finds, then the children."""


def _by_urgency(state: BrokerState) -> list[tuple[str, BrokerPause]]:
    """The reasons to take no events, what an operator should read first before all others."""
    between = sorted(state.pauses.keys() - {*_FIRST, *_LAST})
    return [(reason, state.pauses[reason]) for reason in (*_FIRST, *between, *_LAST) if reason in state.pauses]


def _why_not_ready(state: BrokerState, started: bool) -> tuple[str, str] | None:
    """A reason code and a message for people."""
    pauses = _by_urgency(state)
    if pauses and (pauses[0][0] in _FIRST or state.connected):
        (first, _), *_ = pauses
        return first, "; ".join(_held(pause) for _, pause in pauses)
    if not state.connected:
        return state.last_error_reason or "broker_connecting", state.last_error or "connecting to RabbitMQ"
    if not started:
        return Pause.STARTING.value, Pause.STARTING.message
    if not state.ready:
        return "not_consuming", state.last_error or "RabbitMQ has not confirmed a consumer on every lane yet"
    return None


def _held(pause: BrokerPause) -> str:
    return f"{pause.message} (for {time.monotonic() - pause.since_s:.0f} s)"


def _child(child: ChildState) -> ChildStatus:
    return ChildStatus(child.name, child.phase, child.pid, child.resident_bytes, child.images_done, child.hello)


def _providers(active: Active | None) -> list[ProviderState]:
    if active is None:
        return []
    return [
        ProviderState(each.name, active.number_of_users(each), active.why_unusable(each))
        for each in active.engine.providers
    ]

"""How the service stands, in one place: what `autotag status`, the health checks and the status page all tell."""

from __future__ import annotations

import time
from dataclasses import asdict

from worker import __version__
from worker.amqp import BrokerState
from worker.settings import Settings
from worker.workshop import Workshop


def why_not_ready(state: BrokerState, workshop: Workshop | None, settings: Settings) -> str | None:
    """Why no events are being taken, in words; None when they are. Ready is consuming, and nothing less."""
    if state.ready and not state.blocked:
        return None
    if state.blocked:
        return f"RabbitMQ has blocked publishing ({state.blocked})"
    if state.paused:
        why = workshop.why_nothing_can_be_tagged(settings) if workshop else None
        return "; ".join(sorted(state.paused)) + (f" ({why})" if why else "")
    return state.last_error or "connecting to RabbitMQ"


def status_of(state: BrokerState, workshop: Workshop | None, settings: Settings) -> dict[str, object]:
    """Everything worth knowing, as JSON."""
    why = why_not_ready(state, workshop, settings)
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
        "ready": why is None,
        "why_not": why,
        "broker": {
            "phase": state.phase.value,
            "for_s": round(time.monotonic() - state.since_s, 1),
            "lanes": sorted(state.lanes),
            "blocked": state.blocked,
            "last_error": state.last_error,
            "reconnects": state.reconnects,
            "unsettled": state.unsettled,
        },
        "model": model,
        "children": [asdict(child) for child in children],
        "providers": [] if workshop is None else [provider.name for provider in workshop.providers],
    }

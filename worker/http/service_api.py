"""What the HTTP side shows and asks of the service, so that neither has to know the other."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

from worker.operations.history import History
from worker.operations.metrics import Metrics
from worker.settings import Settings
from worker.operations.health.status import Health
from worker.engine import Workshop


class Served(Protocol):
    """The service, seen from a request."""

    settings: Settings
    metrics: Metrics
    history: History
    workshop: Workshop | None

    def health(self) -> Health:
        """How it is at this moment."""
        ...

    async def status(self) -> dict[str, object]:
        """Everything worth knowing, as JSON."""
        ...

    async def pause(self) -> dict[str, object]:
        """Take no more events until `resume`; the status then."""
        ...

    async def resume(self) -> dict[str, object]:
        """Take events again; the status then."""
        ...

    async def reset(self) -> dict[str, object]:
        """Forget the crashes and launch what had been disabled; the status then."""
        ...


def served(request: Request) -> Served:
    """The service that a request is about."""
    service: Served = request.app.state.service
    return service

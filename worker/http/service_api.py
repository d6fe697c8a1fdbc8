"""What the HTTP side shows and asks of the service, so that neither has to know the other."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

from worker.engine import Active
from worker.operations.health.status import Health, Status
from worker.operations.history import History
from worker.operations.metrics import Metrics
from worker.settings import Settings


class ServiceApi(Protocol):
    """The service, seen from a request."""

    metrics: Metrics
    history: History

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    @property
    def active(self) -> Active | None:
        """The settings in force with the engine built from them; None until the first engine is open."""
        ...

    def health(self) -> Health:
        """How it is at this moment."""
        ...

    async def status(self) -> Status:
        """Everything worth knowing, as JSON."""
        ...

    async def pause(self) -> Status:
        """Take no more events until `resume`; the status then."""
        ...

    async def resume(self) -> Status:
        """Take events again; the status then."""
        ...

    async def reset(self) -> Status:
        """Forget the crashes and launch what had been disabled; the status then."""
        ...


def service_of(request: Request) -> ServiceApi:
    """The service that a request is about."""
    service: ServiceApi = request.app.state.service
    return service

"""The part of the service that the HTTP endpoints read and control, as a protocol: neither side imports the other."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

from worker.engine import Active
from worker.operations.health.connector_report import ConnectorReport
from worker.operations.health.status import Health, Status
from worker.operations.history import History
from worker.operations.metrics import Metrics
from worker.operations.metrics.cloud import AccountView
from worker.settings import Settings
from worker.settings.in_force import SettingsInForce
from worker.settings.overlay.change import Loader


class ServiceApi(Protocol):
    """The running service."""

    metrics: Metrics
    history: History
    in_force: SettingsInForce

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        ...

    @property
    def active(self) -> Active | None:
        """The settings in force with the engine built from them; None until the first engine is open."""
        ...

    def accounts(self) -> list[AccountView]:
        """Each configured instance's account with each cloud service that it has switched on."""
        ...

    @property
    def load(self) -> Loader:
        """Reads the settings as they are now, in all sources."""
        ...

    async def connector(self) -> ConnectorReport | None:
        """What `autotag connect` last said of itself; None where it has not, or no connection is switched on."""
        ...

    def health(self) -> Health:
        """Whether it is alive, started and ready now."""
        ...

    async def status(self) -> Status:
        """The full status."""
        ...

    async def pause(self) -> Status:
        """Take no more events until `resume`. Returns the new status."""
        ...

    async def resume(self) -> Status:
        """Take events again. Returns the new status."""
        ...

    async def reset(self) -> Status:
        """Forget the crashes and launch a disabled model again. Returns the new status."""
        ...

    async def reload(self) -> Status:
        """Put the settings in force as they are now. Returns the new status; raises an AutotagError if refused."""
        ...


def service_of(request: Request) -> ServiceApi:
    """The application's service."""
    service: ServiceApi = request.app.state.service
    return service

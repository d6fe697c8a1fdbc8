"""The data behind the page: a snapshot of the service and of what one client may see, built once per request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from worker import __version__
from worker.diagnostics.advice import COMMANDS
from worker.engine import Active, Engine
from worker.http.service_api import ServiceApi
from worker.http.sessions import SignedIn
from worker.operations.clock import written
from worker.operations.health.connector_report import ConnectorReport
from worker.operations.health.status import CanaryStatus, Health
from worker.operations.history import History
from worker.settings import Settings

_BUTTONS = {"resume": "press Resume", "reset": "press Reset"}


@dataclass(frozen=True, slots=True)
class View:
    """The service at `now_s` (monotonic). `clock_s`: the wall clock at that time; `queues`: messages by queue."""

    now_s: float
    clock_s: float
    health: Health
    history: History
    settings: Settings
    active: Active | None
    queues: dict[str, int]
    in_hand: int
    may_see_assets: bool
    """Whether names, tags and thumbnails of assets may be shown to the client."""
    why_no_assets: str
    csrf_token: str | None
    """The token that the page's forms carry; None for a client that may not act from the page."""
    why_no_actions: str
    signed_in: SignedIn | None
    canary: CanaryStatus | None = None
    connector: ConnectorReport | None = None
    """What `autotag connect` last said; None where it has not, or no connection is switched on."""
    version: str = __version__

    @property
    def engine(self) -> Engine | None:
        """The engine in use; None until the first one is open."""
        return self.active.engine if self.active is not None else None

    @property
    def actions(self) -> Mapping[str, str]:
        """How the client resumes and resets, for `advice`: with the page's buttons if it has them."""
        return COMMANDS if self.csrf_token is None else _BUTTONS

    def timestamp(self, at_s: float) -> str:
        """A monotonic time as people read it everywhere; see `worker.operations.clock`."""
        return written(datetime.fromtimestamp(self.clock_s - (self.now_s - at_s), UTC))


async def build_view(
    service: ServiceApi,
    *,
    may_see_assets: bool,
    why_no_assets: str,
    csrf_token: str | None,
    why_no_actions: str,
    signed_in: SignedIn | None,
) -> View:
    """The service now, as one client may see it. The parameters are the fields of `View` of the same names."""
    status = await service.status()
    return View(
        now_s=time.monotonic(),
        clock_s=time.time(),
        health=service.health(),
        history=service.history,
        settings=service.settings,
        active=service.active,
        queues=status.queues,
        in_hand=status.events_in_hand,
        may_see_assets=may_see_assets,
        why_no_assets=why_no_assets,
        csrf_token=csrf_token,
        why_no_actions=why_no_actions,
        signed_in=signed_in,
        canary=status.canary,
        connector=await service.connector(),
    )

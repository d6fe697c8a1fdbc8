"""What the page shows, gathered once for each time it is drawn."""

from __future__ import annotations

import time
from dataclasses import dataclass

from worker import __version__
from worker.engine import Active, Engine
from worker.http.service_api import ServiceApi
from worker.operations.health.status import Health
from worker.operations.history import History
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class View:
    """A moment of the service. `queues`: messages by queue; `clock_s` is the wall clock's time at `now_s`."""

    now_s: float
    clock_s: float
    health: Health
    history: History
    settings: Settings
    active: Active | None
    queues: dict[str, int]
    in_hand: int
    sees_assets: bool
    """Whether names, tags and pictures of assets may be shown to the one who asks."""
    why_no_assets: str
    proof: str | None
    """What a form must carry so that it is believed to come from this page; None for those who may not act."""
    why_no_actions: str
    signed_in: bool
    version: str = __version__

    @property
    def engine(self) -> Engine | None:
        """The engine in use; None until the first one is open."""
        return self.active.engine if self.active is not None else None

    def clock(self, at_s: float) -> str:
        """A monotonic time as the time of day here, `14:03:22`."""
        return time.strftime("%H:%M:%S", time.localtime(self.clock_s - (self.now_s - at_s)))

    def moment(self, at_s: float) -> str:
        """The same for programs, with date and zone."""
        return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.clock_s - (self.now_s - at_s)))


async def view_of(service: ServiceApi, **requester: object) -> View:
    """The service as it is now, for one requester."""
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
        **requester,  # type: ignore[arg-type]
    )

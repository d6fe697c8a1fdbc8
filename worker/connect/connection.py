"""The running parts of one connection, built from its settings: inlet, poller, and what delivers to its target."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from worker.amqp.topology import Lane
from worker.connect.deliver import Deliverer, make_target
from worker.connect.inlets.bucket import BucketListing
from worker.connect.inlets.http import HttpInlet
from worker.connect.inlets.listing import Listing, RequestListing
from worker.connect.inlets.poll import Poller
from worker.connect.inlets.webdav import FolderListing
from worker.connect.intake import UploadIntake
from worker.connect.ledger import TagLedger
from worker.connect.metrics import InMetrics
from worker.connect.outlet import Outlet
from worker.connect.seen import SeenImages
from worker.connect.target_metrics import TargetMetrics
from worker.connect.targets.client import TargetClient
from worker.connect.uploads import UploadMapping
from worker.settings import ConnectionSettings, Settings, SourcesSettings
from worker.sources.s3 import bucket_url


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of the process use."""

    outlet: Outlet
    seen: SeenImages
    ledger: TagLedger
    uploads: InMetrics
    targets: TargetMetrics


class RunningConnection:
    """From `start` to `close`. Raises Misconfigured where its target can't be made."""

    def __init__(self, name: str, settings: Settings, shared: Shared) -> None:
        self.name = name
        self._settings = settings
        own = self._own = settings.connect[name]
        intake = UploadIntake(name, Lane(own.lane), shared.outlet, shared.seen, shared.uploads)
        self.inlet: HttpInlet | None = None
        self.poller: Poller | None = None
        self.deliverer: Deliverer | None = None
        self._client: TargetClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        if own.inlet.enabled:
            mapping = UploadMapping(name, own, own.inlet, "inlet")
            self.inlet = HttpInlet(own.inlet, mapping, intake)
        if own.poll.enabled:
            self._client, listing = listing_of(name, own, settings.sources)
            self.poller = Poller(listing, own.poll.every_s, intake, shared.seen, shared.uploads)
        if own.target.enabled:
            target = make_target(name, settings)
            self.deliverer = Deliverer(name, settings, target, shared.ledger, shared.targets)

    def is_as_in(self, settings: Settings) -> bool:
        """Whether it would be built the same from these settings."""
        used = ("sources", "connector", "retry", "amqp")
        return settings.connect.get(self.name) == self._own and all(
            getattr(settings, name) == getattr(self._settings, name) for name in used
        )

    def start(self) -> None:
        """Begin to list, and to write."""
        if self.poller is not None:
            self._tasks.add(asyncio.create_task(self.poller.run(), name=f"poll {self.name}"))
        if self.deliverer is not None:
            self._tasks.add(asyncio.create_task(self.deliverer.run(), name=f"deliver {self.name}"))

    async def close(self) -> None:
        """Take nothing any more; what is being written is finished."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._client is not None:
            await self._client.close()

    def status(self) -> dict[str, Any]:
        """Its state, as a JSON value."""
        status: dict[str, Any] = {"instance": self._own.instance, "inlet": self.inlet is not None}
        if self.poller is not None:
            trouble = self.poller.trouble
            status["poll"] = {
                "last_complete_s": self.poller.last_complete_s,
                "trouble": None if trouble is None else asdict(trouble),
            }
        if self.deliverer is not None:
            status["target"] = asdict(self.deliverer.state)
        return status


def listing_of(name: str, settings: ConnectionSettings, sources: SourcesSettings) -> tuple[TargetClient, Listing]:
    """The listing of a connection whose poller is on, and the client that it uses, which the caller closes."""
    poll = settings.poll
    client = TargetClient(name, settings, sources)
    if poll.kind == "s3":
        url = str(bucket_url(poll.bucket or "", sources.s3[settings.s3 or ""]))
        return client, BucketListing(poll, name, url, client)
    mapping = UploadMapping(name, settings, poll, "poll")
    kind = FolderListing if poll.kind == "webdav" else RequestListing
    return client, kind(name, settings.url or "", poll, mapping, client)
